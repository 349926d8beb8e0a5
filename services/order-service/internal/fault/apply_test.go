package fault

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

func TestFactsAreMatched(t *testing.T) {
	facts := Facts{SKUs: []string{"A", "B"}, Customer: "c1", Key: "k"}
	for name, c := range map[string]struct {
		match Match
		hit   bool
	}{
		"sku":            {Match{SKU: "B"}, true},
		"other sku":      {Match{SKU: "C"}, false},
		"customer":       {Match{Customer: "c1"}, true},
		"other customer": {Match{Customer: "c2"}, false},
		"both":           {Match{SKU: "A", Customer: "c1", Method: "POST"}, true},
		"one of both":    {Match{SKU: "A", Customer: "c2"}, false},
		"everybody":      {Match{Percentage: ptr(100.0)}, true},
		"nearly nobody":  {Match{Percentage: ptr(0.001)}, false},
	} {
		l, _ := open(t)
		lease := failing("a")
		lease.Match = c.match
		if err := l.Put(lease); err != nil {
			t.Fatal(err)
		}
		got := applyTo(l, Request{Method: "POST", Route: "/x", Facts: func() Facts { return facts }})
		if (got != 0) != c.hit {
			t.Errorf("%s: got %d", name, got)
		}
	}
}

func TestNobodyLooksAtARequestUnlessAFaultAsks(t *testing.T) {
	l, _ := open(t)
	lease := failing("a")
	lease.Match = Match{Route: "/other", Customer: "c"}
	if err := l.Put(lease); err != nil {
		t.Fatal(err)
	}
	applyTo(l, Request{Method: "POST", Route: "/x", Facts: func() Facts {
		t.Error("asked")
		return Facts{}
	}})
}

func TestThePercentageIsAlwaysOfTheSameCustomers(t *testing.T) {
	hit := func(percentage float64) (names []string) {
		m := Match{Percentage: &percentage}
		for n := range 2000 {
			name := fmt.Sprint("customer-", n)
			if m.matches(Request{Facts: func() Facts { return Facts{Customer: name, Key: fmt.Sprint(n * n)} }}) {
				names = append(names, name)
			}
		}
		return names
	}
	ten, twenty := hit(10), hit(20)
	if len(ten) < 150 || len(ten) > 250 || !slices.Equal(ten, hit(10)) {
		t.Errorf("%d of 2000 at 10%%", len(ten))
	}
	for _, name := range ten {
		if !slices.Contains(twenty, name) {
			t.Errorf("%s is not among 20%%", name)
		}
	}
	// As the Python services compute it.
	if got := bucket("customer-1"); got != 8135 {
		t.Errorf("got %v", got)
	}
}

func TestAHangEndsWithItsLease(t *testing.T) {
	for name, end := range map[string]func(*Leases) error{
		"deleted":       func(l *Leases) error { return l.Delete("a") },
		"file removed":  func(l *Leases) error { return os.Remove(l.path) },
		"runs out":      func(*Leases) error { return nil },
		"is set anew":   func(l *Leases) error { return l.Put(failing("a")) },
		"entry removed": func(l *Leases) error { return replace(l.path, []byte(`{"version":1,"leases":{}}`)) },
	} {
		l, _ := open(t)
		ttl := 900
		if name == "runs out" {
			ttl = 1
		}
		if err := l.Put(&Lease{Name: "a", Type: "hang", TTL: ttl}); err != nil {
			t.Fatal(err)
		}
		held, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			l.Apply(context.Background(), Request{}, func(*Lease) { close(held) })
		}()
		select {
		case <-held:
		case <-done: // it may run out before it holds anybody
			if name != "runs out" {
				t.Errorf("%s: nobody was held", name)
			}
		}
		if err := end(l); err != nil {
			t.Fatal(err)
		}
		<-done // hangs, and so fails, if the end is not noticed
	}
}

func TestADelayEndsWithItsLease(t *testing.T) {
	l, _ := open(t)
	if err := l.Put(&Lease{Name: "a", Type: "latency", TTL: 900,
		Params: Params{Distribution: "constant", DelayMS: ptr(30_000.0)}}); err != nil {
		t.Fatal(err)
	}
	ctx, done := context.WithTimeout(t.Context(), 29*time.Second)
	defer done()
	l.Apply(ctx, Request{}, func(*Lease) {
		if err := l.Delete("a"); err != nil {
			t.Error(err)
		}
	})
	if ctx.Err() != nil {
		t.Error("a revoked delay goes on")
	}
}

func TestARampGoesFromOneDelayToTheOther(t *testing.T) {
	l := &Lease{Name: "a", Type: "latency", TTL: 60, CreatedAt: time.Now(), Params: Params{
		Distribution: "ramp", FromMS: ptr(100.0), ToMS: ptr(900.0), OverS: ptr(10.0)}}
	if err := l.prepare(); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]time.Duration{
		-time.Second: 100 * time.Millisecond, 0: 100 * time.Millisecond, 5 * time.Second: 500 * time.Millisecond,
		10 * time.Second: 900 * time.Millisecond, time.Hour: 900 * time.Millisecond,
	} {
		if got := l.draw(l.CreatedAt.Add(after)).delay; got != want {
			t.Errorf("after %s: %s, want %s", after, got, want)
		}
	}
}

func TestACrashEndsTheProcess(t *testing.T) {
	l, _ := open(t)
	crashes := 0
	l.crash = func() { crashes++ }
	if err := l.Put(&Lease{Name: "a", Type: "crash", TTL: 60, Params: Params{Rate: ptr(0.5), Select: "count"}}); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		apply(l, "GET", "/x")
	}
	if crashes != 2 {
		t.Errorf("%d crashes", crashes)
	}
}

func TestABodyIsSentSlowlyUntilTheLeaseIsOver(t *testing.T) {
	l, _ := open(t)
	if err := l.Put(&Lease{Name: "a", Type: "drip", TTL: 900, Params: Params{BytesPerS: ptr(20.0)}}); err != nil {
		t.Fatal(err)
	}
	slow := l.Apply(t.Context(), Request{}, func(*Lease) {}).Slow
	if slow == nil {
		t.Fatal("no drip")
	}
	body, sent, parts := make([]byte, 10_000), 0, 0
	err := l.Pace(t.Context(), slow, body, func(part []byte) error {
		sent += len(part)
		if parts++; parts == 3 {
			return l.Delete("a") // 500 s early
		}
		if parts < 3 && len(part) != 2 {
			t.Errorf("%d bytes at once", len(part))
		}
		return nil
	})
	if err != nil || sent != len(body) || parts != 4 {
		t.Errorf("%d bytes in %d parts, %v", sent, parts, err)
	}
}
