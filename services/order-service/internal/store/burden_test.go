package store

import (
	"context"
	"testing"
	"time"

	"prove/order-service/internal/order"
)

func TestConnectionsAreTakenAndGivenBack(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx, end := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Occupy(ctx, 0)
		}()
		all := func() int {
			if s.read == s.write {
				return s.read.Stats().InUse
			}
			return s.read.Stats().InUse + s.write.Stats().InUse
		}
		want := s.read.Stats().MaxOpenConnections
		if s.read != s.write {
			want++
		}
		eventually(t, func() bool { return all() == want })
		soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := s.Ping(soon); err == nil {
			t.Error("there is a connection left")
		}
		end()
		<-done
		if err := s.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestSomeConnectionsAreTaken(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx, end := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Occupy(ctx, 2)
		}()
		eventually(t, func() bool { return s.read.Stats().InUse == 2 })
		if err := s.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		end()
		<-done
	})
}

func TestALockHoldsUpWritersAndNotReaders(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx, end := context.WithCancel(t.Context())
		defer end()
		locked := make(chan error, 1)
		go func() { locked <- s.Lock(ctx, time.Hour) }()
		o := newOrder("c", "k")
		eventually(t, func() bool { return held(t, s) })
		made := make(chan error, 1)
		go func() {
			_, err := s.Create(context.Background(), o, []byte("fp"), time.Now().Add(-long))
			made <- err
		}()
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("a reader is held up: %v", err)
		}
		if _, err := s.Get(t.Context(), o.ID); err != order.ErrNotFound {
			t.Errorf("the order was made under the lock: %v", err)
		}
		end()
		if err := <-locked; err != nil {
			t.Errorf("the lock: %v", err)
		}
		if err := <-made; err != nil {
			t.Errorf("the writer: %v", err)
		}
	})
}

// held tells whether somebody has the write lock.
func held(t *testing.T, s *Store) bool {
	if s.driver == "pgx" {
		var n int
		err := s.read.QueryRowContext(t.Context(),
			`SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND locktype = 'relation' AND granted
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&n)
		return err == nil && n > 0
	}
	db, err := s.apart()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "PRAGMA busy_timeout = 0"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		return true
	}
	_, err = conn.ExecContext(t.Context(), "ROLLBACK")
	return err != nil
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never")
		}
	}
}
