// Package peer calls other services: traced, bounded by the caller's time, retried within a budget
// and cut off by a circuit breaker. Every request made through it must be safe to repeat.
package peer

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"prove/order-service/internal/order"
	"prove/order-service/internal/telemetry"
)

const (
	// TimeoutHeader carries the milliseconds the caller will still wait.
	TimeoutHeader = "X-Envoy-Expected-Rq-Timeout-Ms"

	maxAttempts  = 3
	retryDelay   = 50 * time.Millisecond
	retryMax     = 400 * time.Millisecond
	maxBodyBytes = 4 << 20

	// A peer that fails half of at least breakerCalls calls within breakerWindow is left alone for
	// breakerRest; then breakerTrials calls try it.
	breakerRate   = 0.5
	breakerCalls  = 10
	breakerWindow = 10 * time.Second
	breakerRest   = time.Second
	breakerTrials = 3
	// So many orders a second are begun while the peer is on trial.
	trialRate = 10
)

// Transport is shared by all peers: connections are kept, requests traced and measured.
type Transport struct {
	http.RoundTripper
	connections *http.Transport
}

// NewTransport makes a Transport.
func NewTransport() Transport {
	connections := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConns:        256,
		MaxIdleConnsPerHost: 128,
		IdleConnTimeout:     60 * time.Second,
		DisableCompression:  true,
	}
	return Transport{connections: connections, RoundTripper: otelhttp.NewTransport(connections,
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
			route, _ := r.Context().Value(routeKey{}).(string)
			return r.Method + " " + route
		}))}
}

// CloseIdleConnections is what http.Client looks for; otelhttp hides that of its base.
func (t Transport) CloseIdleConnections() { t.connections.CloseIdleConnections() }

// Renew closes idle connections every so often until ctx ends: those that are opened in their place are
// spread over the replicas that a peer has by then. Requests under way go on. every <= 0: never.
func (t Transport) Renew(ctx context.Context, every time.Duration) {
	if every <= 0 {
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			t.CloseIdleConnections()
		}
	}
}

type routeKey struct{}

// NewBudget is shared by all peers: at most a fifth of the requests under way may be retries, but
// three always may, so that a lone request is retried too.
func NewBudget(metrics *telemetry.Metrics) budget.Budget {
	return budget.NewBuilder().WithMaxRate(0.2).WithMinConcurrency(3).
		OnBudgetExceeded(func(e budget.ExceededEvent) {
			peer, _ := e.Context().Value(peerKey{}).(string)
			metrics.Retry(e.Context(), peer, true)
		}).Build()
}

type peerKey struct{}

// Client calls one peer.
type Client struct {
	Name    string
	base    string
	timeout time.Duration
	http    http.Client
	breaker circuitbreaker.CircuitBreaker[*Response]
	trials  ratelimiter.RateLimiter[any]
	exec    failsafe.Executor[*Response]
}

// New makes a client of the peer at base; timeout bounds one attempt.
func New(name string, base *url.URL, timeout time.Duration, transport http.RoundTripper,
	retries budget.Budget, metrics *telemetry.Metrics) (*Client, error) {
	breaker := circuitbreaker.NewBuilder[*Response]().
		HandleIf(func(_ *Response, err error) bool { return blames(err) }).
		WithFailureRateThreshold(breakerRate, breakerCalls, breakerWindow).
		WithSuccessThreshold(breakerTrials).
		WithDelay(breakerRest).
		Build()
	retry := retrypolicy.NewBuilder[*Response]().
		HandleIf(func(_ *Response, err error) bool { return blames(err) }).
		WithMaxAttempts(maxAttempts).
		WithBackoff(retryDelay, retryMax).
		WithJitterFactor(0.5).
		WithBudget(retries).
		OnRetry(func(e failsafe.ExecutionEvent[*Response]) { metrics.Retry(e.Context(), name, false) }).
		ReturnLastFailure().
		Build()
	c := &Client{
		Name: name, base: base.JoinPath("/").String(), timeout: timeout,
		http: http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
		breaker: breaker,
		trials:  ratelimiter.NewSmooth[any](trialRate, time.Second),
		exec:    failsafe.With[*Response](retry, breaker),
	}
	return c, metrics.ObserveBreaker(name, func() int64 { return int64(breaker.State()) })
}

// State says "ok", or why the peer is not called.
func (c *Client) State() string {
	if c.breaker.IsOpen() {
		return "circuit breaker open"
	}
	return "ok"
}

// Resting tells whether nothing that needs the peer should be begun now: its breaker is open, or lets
// through only as much as shows whether the peer is back.
func (c *Client) Resting() bool {
	return !c.breaker.IsClosed() && (c.breaker.RemainingDelay() > 0 || !c.trials.TryAcquirePermit())
}

// Request to a peer. Route is the path with its placeholders, without the leading slash. Timeout
// bounds one attempt; 0 means that of the client.
type Request struct {
	Method  string
	Route   string
	Path    string
	Timeout time.Duration
	Body    any
	Header  map[string]string
}

// Response whose status is below 500. Repeated: an earlier attempt may have been sent, and be
// carried out later than this one.
type Response struct {
	Status   int
	Body     []byte
	Repeated bool
}

// Problem is what the domain wants to know of an application/problem+json answer.
type Problem struct {
	Type      string `json:"type"`
	Detail    string `json:"detail"`
	SKU       string `json:"sku"`
	Available int64  `json:"available"`
	Reason    string `json:"reason"`
	PaymentID string `json:"payment_id"`
}

// Problem reads the answer as a problem; an empty one when it is none.
func (r *Response) Problem() Problem {
	var p Problem
	if json.Unmarshal(r.Body, &p) != nil {
		return Problem{}
	}
	return p
}

// failure is an attempt that got no usable answer.
type failure struct {
	err    error
	sent   bool // the peer may have acted upon the request
	caller bool // the caller's time was up: the peer is not to blame
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func blames(err error) bool {
	var f *failure
	return errors.As(err, &f) && !f.caller
}

// Do sends the request until it is answered with a status below 500, at most maxAttempts times.
// The error wraps order.ErrNotSent if no attempt can have reached the peer.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = json.Marshal(r.Body); err != nil {
			return nil, err
		}
	}
	ctx = context.WithValue(ctx, peerKey{}, c.Name)
	ctx = context.WithValue(ctx, routeKey{}, "/"+r.Route)
	var last error
	sent := false
	resp, err := c.exec.WithContext(ctx).Get(func() (*Response, error) {
		resp, err := c.attempt(ctx, r, body)
		if err == nil {
			resp.Repeated = resp.Repeated || sent
			return resp, nil
		}
		last, sent = err, sent || err.sent
		return nil, err
	})
	if err == nil {
		return resp, nil
	}
	if last == nil || errors.Is(err, circuitbreaker.ErrOpen) {
		last = errors.Join(err, last)
	}
	if !sent {
		return nil, fmt.Errorf("%s: %w: %w", c.Name, order.ErrNotSent, last)
	}
	return nil, fmt.Errorf("%s: %w", c.Name, last)
}

func (c *Client) attempt(ctx context.Context, r Request, body []byte) (*Response, *failure) {
	if ctx.Err() != nil {
		return nil, &failure{err: ctx.Err(), caller: true}
	}
	attempt, cancel := context.WithTimeout(ctx, cmp.Or(r.Timeout, c.timeout))
	defer cancel()
	req, err := http.NewRequestWithContext(attempt, r.Method, c.base+r.Path, bytes.NewReader(body))
	if err != nil {
		return nil, &failure{err: err, caller: true}
	}
	if deadline, ok := attempt.Deadline(); ok {
		left := max(time.Until(deadline).Milliseconds(), 1)
		req.Header.Set(TimeoutHeader, strconv.FormatInt(left, 10))
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if id := telemetry.RequestID(ctx); id != "" {
		req.Header.Set("X-Request-Id", id)
	}
	// Present but empty: net/http may replay the request on a fresh connection when the peer has
	// closed a kept one, and sends no such header.
	req.Header["X-Idempotency-Key"] = nil
	for name, value := range r.Header {
		req.Header.Set(name, value)
	}
	// With a connection in hand the request may have been sent, whatever the error: net/http replays
	// one that a kept connection has swallowed, and may fail to connect for that.
	var connected atomic.Int32
	resp, err := c.http.Do(req.WithContext(httptrace.WithClientTrace(attempt, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Add(1) },
	})))
	if err != nil {
		if attempt.Err() != nil {
			// The kept connections may lead nowhere, too: each would cost an attempt to find out.
			c.http.CloseIdleConnections()
		}
		return nil, &failure{err: err, sent: connected.Load() > 0, caller: ctx.Err() != nil}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes))
	if err != nil {
		return nil, &failure{err: err, sent: true, caller: ctx.Err() != nil}
	}
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return nil, &failure{err: fmt.Errorf("%s %s answered %d", r.Method, "/"+r.Route, resp.StatusCode), sent: true}
	}
	return &Response{Status: resp.StatusCode, Body: answer, Repeated: connected.Load() > 1}, nil
}
