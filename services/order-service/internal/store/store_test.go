package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"prove/order-service/internal/order"
)

// onBoth runs a test on a fresh SQLite file and on a fresh PostgreSQL database.
func onBoth(t *testing.T, test func(t *testing.T, s *Store)) {
	run := func(name, driver string, dsn func(t *testing.T) string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Open(t.Context(), driver, dsn(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			if err := s.Migrated(t.Context()); !errors.Is(err, ErrNotMigrated) {
				t.Fatalf("before migrating: %v", err)
			}
			for range 2 { // twice is harmless
				if err := s.Migrate(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(s.Migrated(t.Context()), s.Prepare(t.Context()), s.Ping(t.Context())); err != nil {
				t.Fatal(err)
			}
			test(t, s)
		})
	}
	run("sqlite", "sqlite", func(t *testing.T) string {
		return filepath.Join(t.TempDir(), "a name with ?, % and #.db")
	})
	run("postgres", "pgx", newPostgres)
}

var long = time.Hour

func newOrder(customer, key string) *order.Order {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return &order.Order{
		ID: uuid.Must(uuid.NewV7()).String(), CustomerID: customer, Key: key,
		Status: order.Pending, Step: order.StepReserve, DueAt: now.Add(long),
		PaymentMethod: "tok_approve", Lines: []order.Line{{SKU: "A", Name: "Ä \"quoted\" näme", Quantity: 2}},
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		CreatedAt:   now, UpdatedAt: now,
	}
}

func create(t *testing.T, s *Store, o *order.Order) {
	t.Helper()
	prior, err := s.Create(t.Context(), o, []byte("fp"), time.Now().Add(-long))
	if err != nil || prior != nil {
		t.Fatalf("create: %+v, %v", prior, err)
	}
}

func TestAnOrderComesBackAsItWasSaved(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		o := newOrder("c", "k")
		create(t, s, o)
		got, err := s.Get(t.Context(), o.ID)
		if err != nil || !reflect.DeepEqual(got, o) {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, o)
		}
		available := int64(1)
		o.Status, o.Step, o.Attempts = order.Rejected, order.StepRelease, 2
		o.Failure = &order.Failure{Code: order.StockShort, SKU: "A", Available: &available}
		o.Currency, o.TotalMinor, o.PaymentID = "GBP", 1<<40, "pay-1"
		o.Lines = append(o.Lines, order.Line{SKU: "B", Quantity: 1, PriceMinor: 3})
		if err := s.Save(t.Context(), o, nil); err != nil {
			t.Fatal(err)
		}
		got, err = s.Get(t.Context(), o.ID)
		if err != nil || !reflect.DeepEqual(got, o) || got.Version != 2 {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, o)
		}
		var history string
		if err := s.read.QueryRow(`SELECT history FROM orders`).Scan(&history); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(history, "\n"); n != 2 || !strings.Contains(history, `"status":"rejected"`) {
			t.Errorf("history is %s", history)
		}
	})
}

func TestUnknownOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		if _, err := s.Get(t.Context(), uuid.NewString()); !errors.Is(err, order.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestASaveFromAnOlderVersionIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		o := newOrder("c", "k")
		create(t, s, o)
		stale := *o
		if err := s.Save(t.Context(), o, nil); err != nil {
			t.Fatal(err)
		}
		stale.Status = order.Confirmed
		if err := s.Save(t.Context(), &stale, nil); !errors.Is(err, order.ErrConflict) {
			t.Fatalf("got %v", err)
		}
		if got, _ := s.Get(t.Context(), o.ID); got.Status != order.Pending {
			t.Errorf("the stale save changed the order to %s", got.Status)
		}
	})
}

func TestConcurrentDuplicatesOfAKeyMakeOneOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		var made atomic.Int32
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				prior, err := s.Create(context.Background(), newOrder("c", "k"), []byte("fp"), time.Now().Add(-long))
				switch {
				case err != nil:
					t.Error(err)
				case prior == nil:
					made.Add(1)
				case prior.Answer != nil || prior.Order == nil:
					t.Errorf("unexpected prior %+v", prior)
				}
			})
		}
		wg.Wait()
		if made.Load() != 1 {
			t.Errorf("%d orders were made", made.Load())
		}
	})
}

func TestKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx, since := t.Context(), time.Now().Add(-long)
		o := newOrder("c", "k")
		create(t, s, o)
		create(t, s, newOrder("other customer", "k"))

		if _, err := s.Create(ctx, newOrder("c", "k"), []byte("other"), since); !errors.Is(err, order.ErrKeyReused) {
			t.Fatalf("another request under the key: %v", err)
		}
		body := []byte("{\"exact\":  \"bytes\"}\x00\xff")
		if err := s.Save(ctx, o, &order.Answer{Status: 201, Body: body, Final: true}); err != nil {
			t.Fatal(err)
		}
		prior, err := s.Create(ctx, newOrder("c", "k"), []byte("fp"), since)
		if err != nil || prior == nil || prior.Order.ID != o.ID ||
			!reflect.DeepEqual(prior.Answer, &order.Answer{Status: 201, Body: body, Final: true}) {
			t.Fatalf("got %+v, %v", prior, err)
		}
		// Too old a key is free.
		again := newOrder("c", "k")
		if prior, err := s.Create(ctx, again, []byte("other"), time.Now().Add(long)); err != nil || prior != nil {
			t.Fatalf("got %+v, %v", prior, err)
		}
		// One without a final answer is not, however old.
		if _, err := s.Create(ctx, newOrder("c", "k"), []byte("fp"), time.Now().Add(long)); !errors.Is(err, order.ErrKeyReused) {
			t.Fatalf("got %v", err)
		}
		// An answer that is not final frees the key, and the order stays.
		if err := s.Save(ctx, again, &order.Answer{Status: 503, Body: body}); err != nil {
			t.Fatal(err)
		}
		create(t, s, newOrder("c", "k"))
		if _, err := s.Get(ctx, again.ID); err != nil {
			t.Fatal(err)
		}
	})
}

func TestForgetKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		for i := range 5 {
			o := newOrder("c", fmt.Sprint(i))
			create(t, s, o)
			if i < 3 {
				if err := s.Save(ctx, o, &order.Answer{Status: 201, Body: []byte("x"), Final: true}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, want := range []int64{2, 1, 0} {
			if n, err := s.ForgetKeys(ctx, time.Now().Add(long), 2); err != nil || n != want {
				t.Fatalf("forgot %d, %v; want %d", n, err, want)
			}
		}
		if n, err := s.ForgetKeys(ctx, time.Now().Add(-long), 2); err != nil || n != 0 {
			t.Fatalf("forgot %d young keys, %v", n, err)
		}
	})
}

func TestListPagesNewestFirst(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		var want []string
		for i := range 7 {
			o := newOrder("c", fmt.Sprint(i))
			create(t, s, o)
			create(t, s, newOrder("somebody else", fmt.Sprint(i)))
			want = append([]string{o.ID}, want...)
		}
		var got []string
		before := ""
		for {
			page, err := s.List(t.Context(), "c", before, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, o := range page {
				got = append(got, o.ID)
			}
			before = got[len(got)-1]
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
	})
}

func TestClaim(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now().UTC().Truncate(time.Microsecond)
		due := func(key string, at time.Time, step order.Step, attempts int) *order.Order {
			o := newOrder("c", key)
			o.DueAt, o.Step, o.Attempts = at, step, attempts
			create(t, s, o)
			return o
		}
		crashed := due("crashed", now.Add(-3*time.Second), order.StepCharge, 0)
		putOff := due("put off", now.Add(-2*time.Second), order.StepCharge, 4)
		due("later", now.Add(long), order.StepCharge, 0)
		due("finished", now.Add(-long), order.StepNone, 0)

		first, err := s.Claim(ctx, now, now.Add(long), 1)
		if err != nil || len(first) != 1 || first[0].ID != crashed.ID {
			t.Fatalf("got %+v, %v", first, err)
		}
		if first[0].Attempts != 1 || first[0].Version != 2 {
			t.Errorf("a claimed order that was in flight has %d attempts", first[0].Attempts)
		}
		second, err := s.Claim(ctx, now, now.Add(long), 10)
		if err != nil || len(second) != 1 || second[0].ID != putOff.ID || second[0].Attempts != 4 {
			t.Fatalf("got %+v, %v", second, err)
		}
		if none, err := s.Claim(ctx, now, now.Add(long), 10); err != nil || len(none) != 0 {
			t.Fatalf("got %+v, %v", none, err)
		}
		// Whoever held it before has lost it.
		if err := s.Save(ctx, crashed, nil); !errors.Is(err, order.ErrConflict) {
			t.Errorf("got %v", err)
		}
	})
}

func TestConcurrentClaimsShareNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		now := time.Now()
		for i := range 40 {
			o := newOrder("c", fmt.Sprint(i))
			o.DueAt = now.Add(-time.Second)
			create(t, s, o)
		}
		var mu sync.Mutex
		seen := map[string]int{}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					orders, err := s.Claim(context.Background(), now, now.Add(long), 3)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for _, o := range orders {
						seen[o.ID]++
					}
					done := len(seen) == 40
					mu.Unlock()
					if done || len(orders) == 0 {
						return
					}
				}
			})
		}
		wg.Wait()
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s was claimed %d times", id, n)
			}
		}
	})
}

func TestOldestUnfinished(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		if at, err := s.OldestUnfinished(t.Context()); err != nil || !at.IsZero() {
			t.Fatalf("got %s, %v", at, err)
		}
		o := newOrder("c", "1")
		create(t, s, o)
		create(t, s, newOrder("c", "2"))
		if at, err := s.OldestUnfinished(t.Context()); err != nil || !at.Equal(o.CreatedAt) {
			t.Fatalf("got %s, %v; want %s", at, err, o.CreatedAt)
		}
	})
}

// What an operator can mend is one sentence that says how.
func TestOpenExplains(t *testing.T) {
	dir := t.TempDir()
	corrupt := filepath.Join(dir, "corrupt.db")
	if err := os.WriteFile(corrupt, []byte(strings.Repeat("this is not a database ", 300)), 0o600); err != nil {
		t.Fatal(err)
	}
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ driver, dsn, want string }{
		{"sqlite", corrupt, "move it away or restore a backup"},
		{"sqlite", filepath.Join(dir, "no", "such", "order.db"), "does not exist; create it or set DATABASE_URL"},
		{"sqlite", dir, "set DATABASE_URL"},
		{"pgx", fmt.Sprintf("postgresql://u:hunter2@127.0.0.1:%d/d", port), "cannot be reached"},
	} {
		s, err := Open(t.Context(), c.driver, c.dsn)
		if err == nil {
			s.Close()
			t.Errorf("%s: opened", c.dsn)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %q, want %q", c.dsn, err, c.want)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than one line: %q", c.dsn, err)
		}
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("skipped: root may write everywhere; the test of the binary covers it")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), "sqlite", filepath.Join(dir, "order.db"))
	if err == nil || !strings.Contains(err.Error(), "writable") {
		t.Errorf("got %v", err)
	}
}
