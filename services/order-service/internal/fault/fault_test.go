package fault

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func ptr[T any](v T) *T { return &v }

func open(t *testing.T) (*Leases, *bytes.Buffer) {
	var log bytes.Buffer
	return Open(filepath.Join(t.TempDir(), "faults.json"), slog.New(slog.NewTextHandler(&log, nil))), &log
}

func failing(name string) *Lease {
	return &Lease{Name: name, Type: "error", Params: Params{Rate: ptr(1.0)}, TTL: 60}
}

func apply(l *Leases, method, route string) int {
	return applyTo(l, Request{Method: method, Route: route})
}

func applyTo(l *Leases, r Request) int {
	answer := l.Apply(context.Background(), r, func(*Lease) {})
	switch {
	case answer.Failed == nil:
		return 0
	case answer.Failed.Params.Status == 0:
		return 503
	}
	return answer.Failed.Params.Status
}

func TestErrorLease(t *testing.T) {
	l, _ := open(t)
	lease := failing("a")
	lease.Match = Match{Method: "POST", Route: "/api/v1/orders"}
	lease.Params.Status = 500
	if err := l.Put(lease); err != nil {
		t.Fatal(err)
	}
	if got := apply(l, "POST", "/api/v1/orders"); got != 500 {
		t.Errorf("got %d", got)
	}
	for _, other := range [][2]string{{"GET", "/api/v1/orders"}, {"POST", "/api/v1/orders/{id}"}, {"POST", ""}} {
		if got := apply(l, other[0], other[1]); got != 0 {
			t.Errorf("%v: got %d", other, got)
		}
	}
	if err := l.Delete("a"); err != nil {
		t.Fatal(err)
	}
	if err := l.Delete("never there"); err != nil {
		t.Fatal(err)
	}
	if got := apply(l, "POST", "/api/v1/orders"); got != 0 {
		t.Errorf("after the end: got %d", got)
	}
}

func TestDefaultStatusIs503(t *testing.T) {
	l, _ := open(t)
	if err := l.Put(failing("a")); err != nil {
		t.Fatal(err)
	}
	if got := apply(l, "GET", "/x"); got != 503 {
		t.Errorf("got %d", got)
	}
}

func TestLatencyEndsWithTheRequest(t *testing.T) {
	l, _ := open(t)
	err := l.Put(&Lease{Name: "slow", Type: "latency", TTL: 60,
		Params: Params{Distribution: "constant", DelayMS: ptr(30_000.0)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	seen := ""
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Apply(ctx, Request{Method: "GET", Route: "/x"}, func(lease *Lease) { seen = lease.Name; cancel() })
	}()
	<-done // hangs for 30 s, and so fails, if the delay outlives its request
	if seen != "slow" {
		t.Errorf("saw %q", seen)
	}
}

func TestWrongLeasesAreNamed(t *testing.T) {
	l, _ := open(t)
	for field, lease := range map[string]*Lease{
		"name":                {Name: "Upper", Type: "error", TTL: 1, Params: Params{Rate: ptr(1.0)}},
		"ttl_s":               {Name: "a", Type: "error", TTL: 901, Params: Params{Rate: ptr(1.0)}},
		"type":                {Name: "a", Type: "chaos", TTL: 1},
		"params.rate":         {Name: "a", Type: "error", TTL: 1, Params: Params{Rate: ptr(0.0)}},
		"params.select":       {Name: "a", Type: "error", TTL: 1, Params: Params{Rate: ptr(1.0), Select: "all"}},
		"params.status":       {Name: "a", Type: "error", TTL: 1, Params: Params{Rate: ptr(1.0), Status: 200}},
		"params.distribution": {Name: "a", Type: "latency", TTL: 1, Params: Params{Distribution: "cauchy"}},
		"params.delay_ms":     {Name: "a", Type: "latency", TTL: 1, Params: Params{Distribution: "constant"}},
		"params.mean_ms":      {Name: "a", Type: "latency", TTL: 1, Params: Params{Distribution: "normal"}},
		"params.stddev_ms": {Name: "a", Type: "latency", TTL: 1,
			Params: Params{Distribution: "normal", MeanMS: ptr(1.0), StddevMS: ptr(math.NaN())}},
		"params.scale_ms": {Name: "a", Type: "latency", TTL: 1, Params: Params{Distribution: "pareto"}},
		"params.shape": {Name: "a", Type: "latency", TTL: 1,
			Params: Params{Distribution: "pareto", ScaleMS: ptr(1.0)}},
		"params.over_s": {Name: "a", Type: "latency", TTL: 1,
			Params: Params{Distribution: "ramp", FromMS: ptr(0.0), ToMS: ptr(1.0)}},
		"params.from_ms":     {Name: "a", Type: "error", TTL: 1, Params: Params{Rate: ptr(1.0), FromMS: ptr(1.0)}},
		"params.body":        {Name: "a", Type: "error", TTL: 1, Params: Params{Rate: ptr(1.0), Body: ptr(strings.Repeat("ä", 4097))}},
		"params.bytes_per_s": {Name: "a", Type: "drip", TTL: 1, Params: Params{BytesPerS: ptr(0.5)}},
		"params.after_s":     {Name: "a", Type: "crash-loop", TTL: 1},
		"params.share":       {Name: "a", Type: "cpu", TTL: 1, Params: Params{Share: ptr(1.5)}},
		"params.cap_mb":      {Name: "a", Type: "memory", TTL: 1, Params: Params{MBPerS: ptr(1.0), CapMB: 513}},
		"params.connections": {Name: "a", Type: "pool", TTL: 1, Params: Params{Connections: 1, All: true}},
		"params.every_ms":    {Name: "a", Type: "lock", TTL: 1, Params: Params{HoldMS: ptr(1.0)}},
		"match":              {Name: "a", Type: "cpu", TTL: 1, Match: Match{Method: "GET"}, Params: Params{Share: ptr(1.0)}},
		"match.percentage":   {Name: "a", Type: "hang", TTL: 1, Match: Match{Percentage: ptr(101.0)}},
	} {
		var invalid *InvalidError
		if err := l.Put(lease); !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if len(l.List()) != 0 {
		t.Error("a wrong lease was taken")
	}
}

func TestDistributions(t *testing.T) {
	draws := func(p Params) []float64 {
		p.Seed = ptr(int64(7))
		l := &Lease{Name: "a", Type: "latency", TTL: 1, Params: p}
		if err := l.prepare(); err != nil {
			t.Fatal(err)
		}
		out := make([]float64, 20_000)
		for i := range out {
			out[i] = float64(l.draw(time.Now()).delay) / float64(time.Millisecond)
		}
		return out
	}
	quantile := func(v []float64, q float64) float64 {
		v = slices.Sorted(slices.Values(v))
		return v[int(q*float64(len(v)))]
	}
	near := func(what string, got, want float64) {
		if math.Abs(got-want) > 0.05*want {
			t.Errorf("%s: got %.1f, want about %.1f", what, got, want)
		}
	}
	normal := draws(Params{Distribution: "normal", MeanMS: ptr(200.0), StddevMS: ptr(50.0)})
	near("median of normal", quantile(normal, 0.5), 200)
	near("84% of normal", quantile(normal, 0.8413), 250)
	pareto := draws(Params{Distribution: "pareto", ScaleMS: ptr(100.0), Shape: ptr(1.5)})
	near("median of pareto", quantile(pareto, 0.5), 100*math.Pow(2, 1/1.5))
	near("90% of pareto", quantile(pareto, 0.9), 100*math.Pow(10, 1/1.5))
	if low := slices.Min(pareto); low < 100 {
		t.Errorf("pareto drew %.1f, below its scale", low)
	}
	wild := draws(Params{Distribution: "normal", MeanMS: ptr(0.0), StddevMS: ptr(30_000.0)})
	if slices.Min(wild) != 0 || slices.Max(wild) != 30_000 {
		t.Errorf("delays are not clipped: %.1f to %.1f", slices.Min(wild), slices.Max(wild))
	}
	if !slices.Equal(pareto, draws(Params{Distribution: "pareto", ScaleMS: ptr(100.0), Shape: ptr(1.5)})) {
		t.Error("the same seed gave other draws")
	}
}

func TestErrorRate(t *testing.T) {
	l := &Lease{Name: "a", Type: "error", TTL: 1, Params: Params{Rate: ptr(0.3), Seed: ptr(int64(1))}}
	if err := l.prepare(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for range 10_000 {
		if l.draw(time.Now()).hit {
			n++
		}
	}
	if n < 2800 || n > 3200 {
		t.Errorf("%d of 10000 failed at a rate of 0.3", n)
	}
}

func TestRateByCount(t *testing.T) {
	for _, c := range []struct {
		rate float64
		per  int // the rate in thousandths
	}{{1, 1000}, {0.5, 500}, {0.2, 200}, {0.29, 290}, {0.7, 700}, {0.001, 1}} {
		for _, kind := range []string{"error", "latency"} {
			params := Params{Rate: ptr(c.rate), Select: "count"}
			if kind == "latency" {
				params.Distribution, params.DelayMS = "constant", ptr(600.0)
			}
			l := &Lease{Name: "a", Type: kind, TTL: 1, Params: params}
			if err := l.prepare(); err != nil {
				t.Fatal(err)
			}
			hits := 0
			for n := 1; n <= 2000; n++ {
				if l.draw(time.Now()).hit {
					hits++
				}
				if want := n * c.per / 1000; hits != want {
					t.Fatalf("%s at %g: %d of %d were hit, not %d", kind, c.rate, hits, n, want)
				}
			}
		}
	}
}

func TestRequestsThatDoNotMatchDoNotCount(t *testing.T) {
	l, _ := open(t)
	lease := failing("a")
	lease.Match = Match{Route: "/a"}
	lease.Params.Rate, lease.Params.Select = ptr(0.5), "count"
	if err := l.Put(lease); err != nil {
		t.Fatal(err)
	}
	var got []int
	for range 4 {
		apply(l, "GET", "/b")
		got = append(got, apply(l, "GET", "/a"))
	}
	if !slices.Equal(got, []int{0, 503, 0, 503}) {
		t.Errorf("got %v", got)
	}
}

func TestALeaseGoesOnCountingWhenAnotherIsSet(t *testing.T) {
	l, _ := open(t)
	lease := failing("a")
	lease.Match = Match{Route: "/a"}
	lease.Params.Rate, lease.Params.Select = ptr(0.5), "count"
	if err := l.Put(lease); err != nil {
		t.Fatal(err)
	}
	first := apply(l, "GET", "/a")
	other := failing("b")
	other.Match = Match{Route: "/b"}
	if err := l.Put(other); err != nil {
		t.Fatal(err)
	}
	if second := apply(l, "GET", "/a"); first != 0 || second != 503 {
		t.Errorf("got %d, %d", first, second)
	}
}

func TestAShareOfRequestsIsDelayed(t *testing.T) {
	l := &Lease{Name: "a", Type: "latency", TTL: 1, Params: Params{
		Distribution: "constant", DelayMS: ptr(600.0), Rate: ptr(0.3), Seed: ptr(int64(1))}}
	if err := l.prepare(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for range 10_000 {
		if l.draw(time.Now()).delay != 0 {
			n++
		}
	}
	if n < 2800 || n > 3200 {
		t.Errorf("%d of 10000 were delayed at a rate of 0.3", n)
	}
}

// until polls: the file is looked at every checkEvery.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestLeasesAreSharedThroughTheFile(t *testing.T) {
	a, _ := open(t)
	b := Open(a.path, a.log)
	if err := a.Put(failing("a")); err != nil {
		t.Fatal(err)
	}
	until(t, "the other process sees it", func() bool { return apply(b, "GET", "/x") == 503 })
	if err := b.Put(failing("b")); err != nil {
		t.Fatal(err)
	}
	until(t, "both are seen", func() bool { return len(a.List()) == 2 })
	if err := os.Remove(a.path); err != nil {
		t.Fatal(err)
	}
	until(t, "removing the file revokes them", func() bool { return apply(a, "GET", "/x") == 0 })
}

func TestTheFilesOfOtherServicesAreRead(t *testing.T) {
	l, _ := open(t)
	future := time.Now().Add(time.Minute).UnixMilli()
	write := func(content string) {
		if err := replace(l.path, []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	format := `{"version":1,"leases":{"x":{"type":"error","params":{"rate":1,"status":418},"match":null,` +
		`"ttl_s":60,"created_at_unix_ms":1,"expires_at_unix_ms":%EXPIRES%}}}`
	write(strings.ReplaceAll(format, "%EXPIRES%", "1000"))
	until(t, "an expired lease is read", func() bool { return len(l.List()) == 0 && l.current.Load().info != nil })
	if got := apply(l, "GET", "/x"); got != 0 {
		t.Errorf("an expired lease still works: %d", got)
	}
	write(strings.ReplaceAll(format, "%EXPIRES%", itoa(future)))
	until(t, "a lease from elsewhere", func() bool { return apply(l, "GET", "/x") == 418 })
}

func itoa(n int64) string { return slog.Int64Value(n).String() }

func TestACorruptFileMeansNoFaultsAndOneWarning(t *testing.T) {
	l, log := open(t)
	if err := l.Put(failing("a")); err != nil {
		t.Fatal(err)
	}
	if err := replace(l.path, []byte("{broken")); err != nil {
		t.Fatal(err)
	}
	until(t, "no faults", func() bool { return apply(l, "GET", "/x") == 0 })
	l.checked.Store(0)
	apply(l, "GET", "/x")
	if n := strings.Count(log.String(), "not usable"); n != 1 {
		t.Errorf("%d warnings: %s", n, log)
	}
	if err := l.Put(failing("b")); err != nil {
		t.Errorf("a new lease does not replace the corrupt file: %v", err)
	}
}

func TestALeaseEndsByItself(t *testing.T) {
	l, _ := open(t)
	lease := failing("a")
	lease.TTL = 1
	if err := l.Put(lease); err != nil {
		t.Fatal(err)
	}
	until(t, "it ends", func() bool { return apply(l, "GET", "/x") == 0 && len(l.List()) == 0 })
}

func TestUnwritableFile(t *testing.T) {
	l := Open(filepath.Join(t.TempDir(), "no", "dir", "faults.json"), slog.New(slog.DiscardHandler))
	if err := l.Put(failing("a")); err == nil || !strings.Contains(err.Error(), "leases file") {
		t.Errorf("got %v", err)
	}
	if apply(l, "GET", "/x") != 0 {
		t.Error("a lease that could not be kept works")
	}
}
