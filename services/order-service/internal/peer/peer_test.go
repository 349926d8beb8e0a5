package peer

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"prove/order-service/internal/order"
	"prove/order-service/internal/porttest"
	"prove/order-service/internal/telemetry"
)

type fixture struct {
	*Client
	calls atomic.Int64
}

// start serves h as the peer and returns a client of it with a budget of its own.
func start(t *testing.T, timeout time.Duration, h http.HandlerFunc) *fixture {
	f := &fixture{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.calls.Add(1)
		h(w, r)
	}))
	t.Cleanup(server.Close)
	f.Client = newClient(t, server.URL, timeout)
	return f
}

func newClient(t *testing.T, base string, timeout time.Duration) *Client {
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := telemetry.NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New("peer", u, timeout, NewTransport(), NewBudget(metrics), metrics)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var call = Request{Method: http.MethodPost, Route: "things/{id}", Path: "things/7", Body: map[string]int{"n": 1}}

func TestRetriesUntilAnswered(t *testing.T) {
	var f *fixture
	f = start(t, 5*time.Second, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) != `{"n":1}` || r.URL.Path != "/things/7" {
			t.Errorf("got %s %s", r.URL.Path, body)
		}
		if f.calls.Load() < 3 {
			w.WriteHeader(503)
			return
		}
		w.WriteHeader(201)
	})
	resp, err := f.Do(t.Context(), call)
	if err != nil || resp.Status != 201 || f.calls.Load() != 3 {
		t.Errorf("got %+v, %v after %d calls", resp, err, f.calls.Load())
	}
}

func TestGivesUpAfterThreeAttempts(t *testing.T) {
	f := start(t, 5*time.Second, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	_, err := f.Do(t.Context(), call)
	if err == nil || errors.Is(err, order.ErrNotSent) || f.calls.Load() != maxAttempts {
		t.Errorf("got %v after %d calls", err, f.calls.Load())
	}
}

func TestClientErrorsAreAnswers(t *testing.T) {
	f := start(t, 5*time.Second, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(409)
		_, _ = io.WriteString(w, `{"type":"/problems/stock-short","sku":"A","available":3}`)
	})
	resp, err := f.Do(t.Context(), call)
	if err != nil || resp.Status != 409 || f.calls.Load() != 1 {
		t.Fatalf("got %+v, %v after %d calls", resp, err, f.calls.Load())
	}
	if p := resp.Problem(); p.SKU != "A" || p.Available != 3 {
		t.Errorf("got %+v", p)
	}
}

func TestAHangingAttemptIsGivenUpAndRepeated(t *testing.T) {
	var f *fixture
	f = start(t, 100*time.Millisecond, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if f.calls.Load() == 1 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(200)
	})
	resp, err := f.Do(t.Context(), call)
	if err != nil || resp.Status != 200 || !resp.Repeated || f.calls.Load() != 2 {
		t.Errorf("got %+v, %v after %d calls", resp, err, f.calls.Load())
	}
	if resp, err := f.Do(t.Context(), call); err != nil || resp.Repeated {
		t.Errorf("asked once: got %+v, %v", resp, err)
	}
}

func TestTheCallersTimeBoundsEverythingAndIsPassedOn(t *testing.T) {
	var left atomic.Int64
	f := start(t, time.Hour, func(_ http.ResponseWriter, r *http.Request) {
		ms, err := strconv.ParseInt(r.Header.Get("x-envoy-expected-rq-timeout-ms"), 10, 64)
		if err != nil {
			t.Error(err)
		}
		left.Store(ms)
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(telemetry.WithRequestID(t.Context(), "req-1"), 200*time.Millisecond)
	defer cancel()
	_, err := f.Do(ctx, call) // an hour, if the caller's time did not count
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, order.ErrNotSent) {
		t.Errorf("got %v", err)
	}
	if ms := left.Load(); ms < 1 || ms > 200 {
		t.Errorf("the peer was told %d ms", ms)
	}
	// A caller without time is not the peer's fault.
	for range 3 * breakerCalls {
		if _, err := f.Do(ctx, call); !errors.Is(err, order.ErrNotSent) {
			t.Fatalf("no time left: got %v", err)
		}
	}
	if f.State() != "ok" {
		t.Errorf("the breaker is blamed on the caller: %s", f.State())
	}
}

func TestNotSent(t *testing.T) {
	base := "http://127.0.0.1:" + porttest.Free()
	if _, err := newClient(t, base, time.Second).Do(t.Context(), call); !errors.Is(err, order.ErrNotSent) {
		t.Errorf("got %v", err)
	}
}

// The peer takes a request and dies: net/http replays it on a new connection, which is refused.
func TestARequestThatAKeptConnectionSwallowedMayHaveBeenSent(t *testing.T) {
	var server *httptest.Server
	requests := 0
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests++; requests == 1 {
			return
		}
		_ = server.Listener.Close()
		connection, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = connection.Close()
	}))
	t.Cleanup(server.Close)
	c := newClient(t, server.URL, 5*time.Second)
	if _, err := c.Do(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(t.Context(), call); err == nil || errors.Is(err, order.ErrNotSent) {
		t.Errorf("got %v after %d requests", err, requests)
	}
}

func TestTheBreakerOpensAndCloses(t *testing.T) {
	var healthy atomic.Bool
	f := start(t, 5*time.Second, func(w http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			w.WriteHeader(500)
		}
	})
	for range breakerCalls {
		if _, err := f.Do(t.Context(), call); err == nil {
			t.Fatal("no error from a broken peer")
		}
	}
	if f.State() == "ok" {
		t.Fatalf("the breaker is closed after %d failures", f.calls.Load())
	}
	before := f.calls.Load()
	if _, err := f.Do(t.Context(), call); !errors.Is(err, order.ErrNotSent) {
		t.Errorf("an open breaker: got %v", err)
	}
	if f.calls.Load() != before {
		t.Error("an open breaker let a call through")
	}
	if !f.Resting() {
		t.Error("the peer does not rest")
	}
	healthy.Store(true)
	begun := 0
	for deadline := time.Now().Add(30 * time.Second); begun == 0; time.Sleep(time.Millisecond) {
		for range 100 {
			if !f.Resting() {
				begun++
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is begun that could show that the peer is back")
		}
	}
	if begun > trialRate {
		t.Errorf("%d orders are begun while the peer is on trial", begun)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := f.Do(t.Context(), call); err == nil && !f.Resting() && f.State() == "ok" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the breaker does not close")
		}
	}
}

// When every call fails, the peer must not see three times the load.
func TestRetriesStayWithinTheBudget(t *testing.T) {
	const callers = 200
	release := make(chan struct{})
	metrics, err := telemetry.NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	budget := NewBudget(metrics)
	var wg sync.WaitGroup
	var retries, running, most atomic.Int64
	for range callers {
		// A client for each: breakers of their own, which stay closed, and the budget shared.
		first := true
		c, err := New("peer", &url.URL{Scheme: "http", Host: "peer.test"}, 30*time.Second, roundTrip(func(r *http.Request) (*http.Response, error) {
			if first {
				first = false
				<-release
				return nil, errors.New("first attempt fails")
			}
			retries.Add(1)
			now := running.Add(1)
			for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
			}
			defer running.Add(-1)
			select {
			case <-r.Context().Done():
			case <-time.After(300 * time.Millisecond): // long enough for all to meet
			}
			return nil, errors.New("retry fails")
		}), budget, metrics)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { _, _ = c.Do(context.Background(), call) })
	}
	close(release)
	wg.Wait()
	// A fifth of all requests under way, retries included, and the one that crosses the line.
	if most.Load() > callers/4+1 {
		t.Errorf("%d of %d calls were retried at once", most.Load(), callers)
	}
	if retries.Load() == 0 {
		t.Error("the budget allows no retry at all")
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRenewedConnectionsReachANewReplica(t *testing.T) {
	f := start(t, 5*time.Second, func(http.ResponseWriter, *http.Request) {})
	transport := NewTransport()
	f.http.Transport = transport
	work, stop := context.WithCancel(t.Context())
	var background sync.WaitGroup
	background.Go(func() { transport.Renew(work, time.Millisecond) })
	defer background.Wait()
	defer stop()
	opened := 0
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if !info.Reused {
			opened++
		}
	}}
	deadline := time.Now().Add(30 * time.Second)
	for opened < 3 && time.Now().Before(deadline) {
		if _, err := f.Do(httptrace.WithClientTrace(t.Context(), trace), call); err != nil {
			t.Fatal(err)
		}
	}
	if opened < 3 {
		t.Errorf("one connection was used for %d requests", f.calls.Load())
	}
}

func TestConnectionsAreKeptWhereNobodyRenewsThem(t *testing.T) {
	transport := NewTransport()
	transport.Renew(t.Context(), 0) // returns at once
}
