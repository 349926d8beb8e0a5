package fault

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// database counts what is taken of it at the moment.
type database struct {
	connections, locks atomic.Int64
	err                error
}

func (d *database) Occupy(ctx context.Context, connections int) {
	d.connections.Add(int64(connections))
	<-ctx.Done()
	d.connections.Add(-int64(connections))
}

func (d *database) Lock(context.Context, time.Duration) error {
	d.locks.Add(1)
	return d.err
}

func bear(t *testing.T, db *database) *Leases {
	l, _ := open(t)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	b := Burdens{Leases: l, Database: db, Log: slog.New(slog.DiscardHandler)}
	go func() {
		defer close(done)
		b.Follow(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return l
}

func TestABurdenLastsAsLongAsItsLease(t *testing.T) {
	db := &database{}
	l := bear(t, db)
	set := func(lease *Lease) {
		if err := l.Put(lease); err != nil {
			t.Fatal(err)
		}
	}
	set(&Lease{Name: "p", Type: "pool", TTL: 900, Params: Params{Connections: 3}})
	until(t, "connections are taken", func() bool { return db.connections.Load() == 3 })
	set(&Lease{Name: "p", Type: "pool", TTL: 900, Params: Params{Connections: 5}})
	until(t, "others are, once it is set anew", func() bool { return db.connections.Load() == 5 })
	// Long enough to be seen in force: who follows looks once in a while.
	set(&Lease{Name: "p", Type: "pool", TTL: 10, Params: Params{Connections: 7}})
	until(t, "others are", func() bool { return db.connections.Load() == 7 })
	until(t, "it runs out", func() bool { return db.connections.Load() == 0 })
	if got := apply(l, "GET", "/x"); got != 0 {
		t.Errorf("a request is hit: %d", got)
	}
}

func TestALockIsTakenAgainAndAgain(t *testing.T) {
	for _, err := range []error{nil, errors.New("locked by somebody else")} {
		db := &database{err: err}
		l := bear(t, db)
		if err := l.Put(&Lease{Name: "l", Type: "lock", TTL: 900,
			Params: Params{HoldMS: ptr(1.0), EveryMS: ptr(20.0)}}); err != nil {
			t.Fatal(err)
		}
		until(t, "it is", func() bool { return db.locks.Load() > 2 })
	}
}

func TestMemoryGrowsToItsCapAndIsGivenBack(t *testing.T) {
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse >> 20
	}
	l := bear(t, &database{})
	if err := l.Put(&Lease{Name: "m", Type: "memory", TTL: 900, Params: Params{MBPerS: ptr(500.0), CapMB: 64}}); err != nil {
		t.Fatal(err)
	}
	until(t, "it grows", func() bool { return inUse() >= 64 })
	if err := l.Delete("m"); err != nil {
		t.Fatal(err)
	}
	until(t, "it is given back", func() bool { return inUse() < 32 })
}

func TestCPUIsBurntUntilTheEnd(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		burn(ctx, 0.5)
	}()
	stop()
	<-done
}

func TestACrashLoopEndsProcessesOfAnAge(t *testing.T) {
	l, _ := open(t)
	var crashes atomic.Int64
	l.crash = func() { crashes.Add(1) }
	b := Burdens{Leases: l, Database: &database{}, Log: slog.New(slog.DiscardHandler)}
	if err := l.Put(&Lease{Name: "c", Type: "crash-loop", TTL: 900, Params: Params{AfterS: ptr(1.0)}}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Follow(ctx)
	}()
	until(t, "it crashes", func() bool { return crashes.Load() > 0 })
	stop()
	<-done
}
