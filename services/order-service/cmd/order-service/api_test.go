package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"prove/order-service/internal/config"
	"prove/order-service/internal/fault"
	"prove/order-service/internal/order"
	"prove/order-service/internal/peer"
	"prove/order-service/internal/peertest"
	"prove/order-service/internal/store"
	"prove/order-service/internal/telemetry"
)

// patience ends hangs; on a busy machine everything takes its time.
const patience = 2 * time.Minute

// shop is the service, wired as in production, with fake peers and a SQLite file of its own.
type shop struct {
	*testing.T
	url      string
	peers    *peertest.Peers
	db       *store.Store
	orders   *order.Service
	faults   *fault.Leases
	draining atomic.Bool
}

func newShop(t *testing.T, change ...func(*config.Config)) *shop {
	t.Helper()
	return newShopWith(t, nil, change...)
}

// newShopWith lets a test change the service before it begins.
func newShopWith(t *testing.T, instrument func(*order.Service), change ...func(*config.Config)) *shop {
	t.Helper()
	t.Parallel()
	s := &shop{T: t, peers: peertest.New(t, map[string]int64{"A": 100, "B": 1})}
	dir := t.TempDir()
	cfg, err := config.Load(func(name string) (string, bool) {
		v, ok := map[string]string{
			"DATABASE_URL": "sqlite:///" + filepath.Join(dir, "order.db"),
			"ADMIN_TOKEN":  "admin-token",
		}[name]
		return v, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg.ProductURL, cfg.PaymentURL = s.peers.URL, s.peers.URL
	for _, c := range change {
		c(&cfg)
	}
	s.db, err = openStore(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var handler http.Handler
	log := slog.New(slog.DiscardHandler)
	s.faults = fault.Open(cfg.FaultsFile, log)
	s.orders, handler, err = wire(cfg, &telemetry.Telemetry{Log: log}, s.db, s.faults, peer.NewTransport(), s.draining.Load)
	if err != nil {
		t.Fatal(err)
	}
	if instrument != nil {
		instrument(s.orders)
	}
	if err := s.orders.Enlist(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	s.url = server.URL
	work, stop := context.WithCancel(context.Background())
	var background sync.WaitGroup
	background.Go(func() { s.orders.Work(work) })
	burdens := fault.Burdens{Leases: s.faults, Database: s.db, Log: log}
	background.Go(func() { burdens.Follow(work) })
	t.Cleanup(func() {
		server.Close()
		stop()
		background.Wait()
		if err := s.db.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

type answer struct {
	status int
	header http.Header
	raw    string
	body   struct {
		Status                                 any // a string of an order, a number of a problem
		ID, Type, Title, Reason, SKU, Instance string
		TraceID                                string `json:"trace_id"`
		RequestID                              string `json:"request_id"`
		OrderID                                string `json:"order_id"`
		CustomerID                             string `json:"customer_id"`
		PaymentID                              string `json:"payment_id"`
		TotalMinor                             int64  `json:"total_minor"`
		Currency                               string
		Available                              *int64
		Lines                                  []struct {
			SKU, Name  string
			Quantity   int64
			PriceMinor int64 `json:"price_minor"`
		}
		Errors  []struct{ Loc, Msg string }
		Items   []struct{ ID string }
		Cursor  *string `json:"next_cursor"`
		Failure *struct{ Code string }
		History []struct{ Status, Step string }
	}
}

func (a answer) history() string {
	var states []string
	for _, h := range a.body.History {
		states = append(states, h.Status+"/"+h.Step)
	}
	return strings.Join(states, " ")
}

func (s *shop) send(method, path, body string, header ...string) answer {
	s.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Error(err)
		return answer{}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Error(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			s.Errorf("%s %s: %v in %s", method, path, err, raw)
		}
	}
	if a.status >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
		s.Errorf("%s %s: %d is no problem+json: %s", method, path, a.status, raw)
	}
	return a
}

const (
	orders = "/api/v1/orders"
	basket = `{"customer_id":"c1","lines":[{"sku":"A","quantity":2}],"payment_method":"%s"}`
)

func (s *shop) checkout(key, token string) answer {
	s.Helper()
	return s.send("POST", orders, fmt.Sprintf(basket, token), "Idempotency-Key", key)
}

func (s *shop) want(a answer, status int, problem string) {
	s.Helper()
	if a.status != status || (problem != "" && a.body.Type != "/problems/"+problem) {
		s.Fatalf("got %d %s, want %d %s", a.status, a.raw, status, problem)
	}
}

// until polls an order until it has the status.
func (s *shop) until(id, status string) answer {
	s.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		a := s.send("GET", orders+"/"+id, "")
		if a.body.Status == status {
			return a
		}
		if time.Now().After(deadline) {
			s.Fatalf("order %s never became %s: %s", id, status, a.raw)
		}
	}
}

func (s *shop) eventually(what string, ok func() bool) {
	s.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("never: %s", what)
		}
	}
}

func (s *shop) unfinished() bool {
	s.Helper()
	backlog, err := s.db.Backlog(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return len(backlog) > 0
}

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestConfirmed(t *testing.T) {
	s := newShop(t)
	a := s.send("POST", orders, fmt.Sprintf(basket, "tok_approve"), "Idempotency-Key", "k",
		"traceparent", traceparent, "X-Request-Id", "req-7")
	s.want(a, 201, "")
	b := a.body
	if b.Status != "confirmed" || b.CustomerID != "c1" || b.TotalMinor != 2*peertest.Price ||
		b.Currency != "GBP" || b.PaymentID == "" || b.TraceID != "0af7651916cd43dd8448eb211c80319c" ||
		len(b.Lines) != 1 || b.Lines[0].Name != "Name of A" || b.Lines[0].PriceMinor != peertest.Price {
		t.Errorf("got %s", a.raw)
	}
	if a.header.Get("Location") != orders+"/"+b.ID || a.header.Get("X-Request-Id") != "req-7" {
		t.Errorf("headers are %v", a.header)
	}
	got := s.send("GET", orders+"/"+b.ID, "")
	if !strings.HasPrefix(got.raw, strings.TrimSuffix(a.raw, "}")+`,"history":[`) {
		t.Errorf("GET gives %s\nPOST gave %s", got.raw, a.raw)
	}
	if h := got.history(); h != "pending/reserve reserved/charge paid/commit confirmed/" {
		t.Errorf("history is %s", h)
	}
	if s.peers.Stock("A") != 98 || s.peers.Reservation(b.ID) != "committed" || s.peers.Payments("captured") != 1 {
		t.Error("the peers are left in another state")
	}
	if s.unfinished() {
		t.Error("work is left")
	}
	for _, r := range s.peers.Requests("POST /api/v1/payments") {
		if r.Header.Get("Idempotency-Key") != b.ID || !strings.HasPrefix(r.Header.Get("Prefer"), "wait=") ||
			r.Header.Get("X-Request-Id") != "req-7" || r.Header.Get("X-Envoy-Expected-Rq-Timeout-Ms") == "" ||
			!strings.Contains(r.Header.Get("Traceparent"), "0af7651916cd43dd8448eb211c80319c") {
			t.Errorf("the payment was asked with %v", r.Header)
		}
	}
}

func TestRejections(t *testing.T) {
	for name, c := range map[string]struct {
		body, problem, reason, sku string
		status                     int
		available                  int64
	}{
		"declined": {fmt.Sprintf(basket, "tok_decline"), "declined", "card_declined", "", 402, 0},
		"short": {`{"customer_id":"c1","lines":[{"sku":"A","quantity":1},{"sku":"B","quantity":2}],"payment_method":"tok_approve"}`,
			"stock-short", "", "B", 409, 1},
		"unknown sku": {`{"customer_id":"c1","lines":[{"sku":"nope","quantity":1}],"payment_method":"tok_approve"}`,
			"unknown-sku", "", "nope", 422, 0},
		"unknown token": {fmt.Sprintf(basket, "tok_other"), "unknown-payment-method", "", "", 422, 0},
		"currency": {`{"customer_id":"c1","currency":"EUR","lines":[{"sku":"A","quantity":1}],"payment_method":"tok_approve"}`,
			"currency-mismatch", "", "", 422, 0},
		"price": {`{"customer_id":"c1","expected_total_minor":1,"lines":[{"sku":"A","quantity":1}],"payment_method":"tok_approve"}`,
			"price-changed", "", "", 409, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			first := s.send("POST", orders, c.body, "Idempotency-Key", "k")
			s.want(first, c.status, c.problem)
			b := first.body
			if b.Reason != c.reason || b.SKU != c.sku || b.Instance != orders || b.OrderID == "" || b.RequestID == "" {
				t.Errorf("got %s", first.raw)
			}
			if c.available != 0 && (b.Available == nil || *b.Available != c.available) {
				t.Errorf("available: %s", first.raw)
			}
			again := s.send("POST", orders, c.body, "Idempotency-Key", "k")
			if again.raw != first.raw || again.status != first.status || again.header.Get("Idempotency-Replayed") != "true" {
				t.Errorf("replayed %d %s\nfirst was %d %s", again.status, again.raw, first.status, first.raw)
			}
			s.until(b.OrderID, "rejected")
			s.eventually("the stock is back", func() bool {
				return s.peers.Stock("A") == 100 && s.peers.Stock("B") == 1 && !s.unfinished()
			})
			if s.peers.Payments("captured") != 0 {
				t.Error("money was taken")
			}
		})
	}
}

func TestIdempotencyKey(t *testing.T) {
	s := newShop(t)
	s.want(s.send("POST", orders, fmt.Sprintf(basket, "tok_approve")), 400, "key-missing")
	s.want(s.send("POST", orders, fmt.Sprintf(basket, "tok_approve"), "Idempotency-Key", "ä"), 422, "validation")

	first := s.checkout("k", "tok_approve")
	s.want(first, 201, "")
	if first.header.Get("Idempotency-Replayed") != "" {
		t.Error("the first answer claims to be replayed")
	}
	again := s.checkout("k", "tok_approve")
	if again.raw != first.raw || again.status != 201 || again.header.Get("Idempotency-Replayed") != "true" ||
		again.header.Get("Location") != first.header.Get("Location") || again.header.Get("Content-Type") != "application/json" {
		t.Errorf("replayed %d %s", again.status, again.raw)
	}
	s.want(s.checkout("k", "tok_decline"), 422, "key-reused")
	other := s.send("POST", orders, strings.Replace(fmt.Sprintf(basket, "tok_approve"), "c1", "c2", 1), "Idempotency-Key", "k")
	s.want(other, 201, "")
	if other.body.ID == first.body.ID {
		t.Error("keys of two customers clash")
	}
}

func TestConcurrentDuplicatesMakeOneOrder(t *testing.T) {
	s := newShop(t, func(c *config.Config) { c.MaxCheckouts = 200 })
	var wg sync.WaitGroup
	answers := make([]answer, 200)
	for i := range answers {
		wg.Go(func() { answers[i] = s.checkout("k", "tok_approve") })
	}
	wg.Wait()
	confirmed := map[string]int{}
	for _, a := range answers {
		switch a.status {
		case 201:
			confirmed[a.raw]++
		case 409:
			if a.body.Type != "/problems/key-in-flight" || a.header.Get("Retry-After") == "" {
				t.Errorf("got %s", a.raw)
			}
		default:
			t.Errorf("got %d %s", a.status, a.raw)
		}
	}
	if len(confirmed) != 1 {
		t.Errorf("%d different answers: %v", len(confirmed), confirmed)
	}
	if list := s.send("GET", orders+"?customer_id=c1", ""); len(list.body.Items) != 1 {
		t.Errorf("%d orders", len(list.body.Items))
	}
	if s.peers.Payments("captured") != 1 || s.peers.Stock("A") != 98 {
		t.Errorf("%d payments, %d left in stock", s.peers.Payments("captured"), s.peers.Stock("A"))
	}
}

func TestUnknownPaymentOutcomeIsAskedAgainUnderTheSameKey(t *testing.T) {
	s := newShop(t)
	a := s.checkout("k", "tok_slow")
	s.want(a, 202, "")
	if a.header.Get("Location") != orders+"/"+a.body.ID || a.body.Status != "reserved" {
		t.Errorf("got %v %s", a.header, a.raw)
	}
	// Not final: repeated, it is the state of the order.
	again := s.checkout("k", "tok_slow")
	if again.status != 202 || again.header.Get("Idempotency-Replayed") != "" || again.body.ID != a.body.ID {
		t.Errorf("got %d %s", again.status, again.raw)
	}
	s.peers.Settle("captured", "")
	s.until(a.body.ID, "confirmed")
	final := s.checkout("k", "tok_slow")
	if final.status != 201 || final.body.Status != "confirmed" || final.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("got %d %s", final.status, final.raw)
	}
	if final.body.TraceID != a.body.TraceID {
		t.Error("the order changed its trace")
	}
	if n := s.peers.Payments("captured"); n != 1 {
		t.Errorf("%d payments", n)
	}
}

func TestSettledAsDeclinedLater(t *testing.T) {
	s := newShop(t)
	a := s.checkout("k", "tok_slow")
	s.want(a, 202, "")
	s.peers.Settle("declined", "insufficient_funds")
	s.until(a.body.ID, "rejected")
	final := s.checkout("k", "tok_slow")
	s.want(final, 402, "declined")
	if final.body.Reason != "insufficient_funds" {
		t.Errorf("got %s", final.raw)
	}
	s.eventually("the stock is back", func() bool { return s.peers.Stock("A") == 100 && !s.unfinished() })
}

func TestAChargeWithoutAnswerIsNotRepeatedAsANewOne(t *testing.T) {
	s := newShop(t)
	a := s.checkout("k", "tok_unknown") // charges, then hangs up; the retry learns the outcome
	s.want(a, 201, "")
	if n := len(s.peers.Requests("POST /api/v1/payments")); n != 2 || s.peers.Payments("captured") != 1 {
		t.Errorf("%d requests, %d payments", n, s.peers.Payments("captured"))
	}
}

// fail answers requests whose path ends so with the status, for as long as it is on.
func (s *shop) fail(suffix string, status int) (on *atomic.Bool) {
	on = &atomic.Bool{}
	on.Store(true)
	s.peers.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !on.Load() || !strings.HasSuffix(r.URL.Path, suffix) {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		return true
	})
	return on
}

// During an outage an order that cannot go on is not recorded, to be compensated later.
func TestNothingIsBegunWhileAPeerRests(t *testing.T) {
	s := newShop(t)
	first := s.checkout("known", "tok_approve")
	s.want(first, 201, "")
	down := s.fail("", 500)
	refused := 0
	for i := range 60 {
		a := s.checkout(fmt.Sprint("k", i), "tok_approve")
		s.want(a, 503, "unavailable")
		if strings.Contains(a.raw, "nothing was recorded") {
			refused++
		}
	}
	if made := len(s.send("GET", orders+"?customer_id=c1&limit=100", "").body.Items); refused == 0 || made != 61-refused {
		t.Errorf("%d refused, %d recorded", refused, made)
	}
	if again := s.checkout("known", "tok_approve"); again.raw != first.raw {
		t.Errorf("a known order is answered with %s", again.raw)
	}
	s.want(s.checkout("known", "tok_decline"), 422, "key-reused")
	down.Store(false)
	s.eventually("orders are taken again", func() bool { return s.checkout("k0", "tok_approve").status == 201 })
}

func TestProductDown(t *testing.T) {
	s := newShop(t)
	down := s.fail("", 500)
	a := s.checkout("k", "tok_approve")
	s.want(a, 503, "unavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	down.Store(false)
	s.eventually("what may be held is released", func() bool { return !s.unfinished() })
	// 503 is not final: the same key may try again.
	s.eventually("the breaker lets a retry through", func() bool { return s.checkout("k", "tok_approve").status == 201 })
	if s.peers.Payments("captured") != 1 || s.peers.Stock("A") != 98 {
		t.Errorf("%d payments, %d left in stock", s.peers.Payments("captured"), s.peers.Stock("A"))
	}
}

func TestPaymentUnreachable(t *testing.T) {
	s := newShop(t, func(c *config.Config) {
		closed := httptest.NewServer(nil)
		closed.Close()
		c.PaymentURL, _ = c.PaymentURL.Parse(closed.URL)
	})
	a := s.checkout("k", "tok_approve")
	s.want(a, 503, "unavailable") // certain: nothing was sent
	s.eventually("the stock is back", func() bool { return s.peers.Stock("A") == 100 && !s.unfinished() })
}

func TestPaymentFailing(t *testing.T) {
	s := newShop(t)
	down := s.fail("/payments", 500)
	a := s.checkout("k", "tok_approve")
	s.want(a, 202, "") // it may have charged
	down.Store(false)
	s.until(a.body.ID, "confirmed")
}

func TestCommitIsRepeatedUntilItWorks(t *testing.T) {
	s := newShop(t)
	down := s.fail("/commit", 500)
	a := s.checkout("k", "tok_approve")
	s.want(a, 202, "")
	if a.body.Status != "paid" {
		t.Errorf("got %s", a.raw)
	}
	down.Store(false)
	s.until(a.body.ID, "confirmed")
}

func TestGoodsGoneBeforeALateChargeCancelIt(t *testing.T) {
	s := newShop(t)
	a := s.checkout("k", "tok_slow")
	s.want(a, 202, "")
	s.peers.Lapse()
	s.until(a.body.ID, "rejected")
	s.eventually("the charge is being cancelled", func() bool { return s.peers.Payments("cancelling") == 1 })
	s.peers.Settle("captured", "") // a success that comes after all
	s.eventually("the money is back", func() bool { return s.peers.Payments("refunded") == 1 && !s.unfinished() })
	s.want(s.checkout("k", "tok_slow"), 409, "reservation-gone")
}

func TestGoodsGoneAfterTheChargeAreRefunded(t *testing.T) {
	s := newShop(t)
	down := s.fail("/commit", 500)
	a := s.checkout("k", "tok_approve")
	s.want(a, 202, "")
	s.peers.Lapse()
	down.Store(false)
	s.until(a.body.ID, "rejected")
	s.eventually("the money is back", func() bool { return s.peers.Payments("refunded") == 1 && !s.unfinished() })
	s.want(s.checkout("k", "tok_approve"), 409, "reservation-gone")
}

func TestCompensationIsRepeatedUntilItWorks(t *testing.T) {
	s := newShop(t)
	down := s.fail("/release", 500)
	s.want(s.checkout("k", "tok_decline"), 402, "declined") // the customer does not wait for it
	if s.peers.Stock("A") != 98 {
		t.Fatal("released in spite of the failure")
	}
	down.Store(false)
	s.eventually("the stock is back", func() bool { return s.peers.Stock("A") == 100 && !s.unfinished() })
}

func TestCancel(t *testing.T) {
	s := newShop(t)
	a := s.checkout("k", "tok_approve")
	s.want(a, 201, "")
	for range 2 { // idempotent
		c := s.send("POST", orders+"/"+a.body.ID+"/cancel", "")
		if c.status != 200 || c.body.Status != "cancelled" {
			t.Fatalf("got %d %s", c.status, c.raw)
		}
	}
	if s.peers.Payments("refunded") != 1 || s.peers.Stock("A") != 100 {
		t.Errorf("%d refunds, %d in stock", s.peers.Payments("refunded"), s.peers.Stock("A"))
	}
	if again := s.checkout("k", "tok_approve"); again.raw != a.raw || again.status != 201 {
		t.Errorf("the first answer changed to %s", again.raw)
	}
	s.want(s.send("POST", orders+"/01890a5d-ac96-774b-bcce-b302099a8057/cancel", ""), 404, "not-found")
	declined := s.checkout("k2", "tok_decline")
	s.want(s.send("POST", orders+"/"+declined.body.OrderID+"/cancel", ""), 409, "not-cancellable")
}

func TestCancelWithARefundUnderWay(t *testing.T) {
	s := newShop(t)
	a := s.checkout("k", "tok_approve")
	down := s.fail("/payments/cancel", 503)
	c := s.send("POST", orders+"/"+a.body.ID+"/cancel", "")
	if c.status != 202 || c.body.Status != "cancelled" {
		t.Fatalf("got %d %s", c.status, c.raw)
	}
	down.Store(false)
	s.eventually("refund and release", func() bool {
		return s.peers.Payments("refunded") == 1 && s.peers.Stock("A") == 100 && !s.unfinished()
	})
}

func TestTheCallersTimeBoundsTheCheckout(t *testing.T) {
	s := newShop(t)
	s.peers.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done() // hangs until given up
		return true
	})
	a := s.send("POST", orders, fmt.Sprintf(basket, "tok_approve"), "Idempotency-Key", "k",
		"x-envoy-expected-rq-timeout-ms", "1500")
	s.want(a, 503, "unavailable")
	s.peers.Intercept(nil)
	s.eventually("nothing is left", func() bool { return !s.unfinished() })
	if s.peers.Payments("captured") != 0 {
		t.Error("money was taken")
	}
}

func TestAClientThatHangsUpDoesNotStopItsOrder(t *testing.T) {
	s := newShop(t)
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.peers.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/payments") {
			once.Do(func() { close(reached) })
			<-release
		}
		return false
	})
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", s.url+orders, strings.NewReader(fmt.Sprintf(basket, "tok_approve")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Idempotency-Key", "k")
	req.Header.Set("Content-Type", "application/json")
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			t.Error("answered although hung up")
		}
	}()
	<-reached
	hangUp()
	<-done
	s.want(s.checkout("k", "tok_approve"), 409, "key-in-flight")
	close(release)
	s.eventually("the order is confirmed", func() bool {
		a := s.checkout("k", "tok_approve")
		return a.status == 201 && a.header.Get("Idempotency-Replayed") == "true"
	})
	if s.peers.Payments("captured") != 1 {
		t.Errorf("%d payments", s.peers.Payments("captured"))
	}
}

func TestList(t *testing.T) {
	s := newShop(t)
	var want []string
	for i := range 5 {
		want = append([]string{s.checkout(fmt.Sprint(i), "tok_approve").body.ID}, want...)
	}
	var got []string
	cursor := ""
	for {
		page := s.send("GET", orders+"?customer_id=c1&limit=2"+cursor, "")
		s.want(page, 200, "")
		for _, o := range page.body.Items {
			got = append(got, o.ID)
		}
		if page.body.Cursor == nil {
			break
		}
		cursor = "&cursor=" + *page.body.Cursor
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if none := s.send("GET", orders+"?customer_id=nobody", ""); !strings.Contains(none.raw, `"items":[]`) {
		t.Errorf("got %s", none.raw)
	}
}

func TestBadInput(t *testing.T) {
	s := newShop(t)
	post := func(body string, header ...string) answer {
		return s.send("POST", orders, body, append([]string{"Idempotency-Key", "k"}, header...)...)
	}
	line := func(sku, quantity string) string {
		return `{"customer_id":"c1","lines":[{"sku":` + sku + `,"quantity":` + quantity + `}],"payment_method":"tok_a"}`
	}
	for name, c := range map[string]struct {
		got     answer
		status  int
		problem string
	}{
		"no JSON":          {post(`{"customer_id":`), 400, "malformed"},
		"no body":          {post(""), 400, "malformed"},
		"an array":         {post(`[]`), 422, "validation"},
		"nothing in it":    {post(`{}`), 422, "validation"},
		"no lines":         {post(`{"customer_id":"c1","lines":[],"payment_method":"tok_a"}`), 422, "validation"},
		"null lines":       {post(`{"customer_id":"c1","lines":null,"payment_method":"tok_a"}`), 422, "validation"},
		"zero":             {post(line(`"A"`, "0")), 422, "validation"},
		"too many":         {post(line(`"A"`, "10001")), 422, "validation"},
		"a fraction":       {post(line(`"A"`, "1.5")), 422, "validation"},
		"a huge number":    {post(line(`"A"`, "1e300")), 422, "validation"},
		"an absurd number": {post(line(`"A"`, "1e999")), 400, "malformed"},
		"a string":         {post(line(`"A"`, `"1"`)), 422, "validation"},
		"odd sku":          {post(line(`"../etc"`, "1")), 422, "validation"},
		"NUL in sku":       {post(line(`"A\u0000"`, "1")), 422, "validation"},
		"unknown field": {post(`{"customer_id":"c1","lines":[{"sku":"A","quantity":1}],"payment_method":"tok_a","price":1}`),
			422, "validation"},
		"card number":   {post(fmt.Sprintf(basket, "4111111111111111")), 422, "validation"},
		"too long":      {post(`{"customer_id":"` + strings.Repeat("x", 2<<20) + `"}`), 413, "body-too-large"},
		"form":          {post("a=b", "Content-Type", "application/x-www-form-urlencoded"), 415, "unsupported-media-type"},
		"big headers":   {post(line(`"A"`, "1"), "X-Big", strings.Repeat("x", 20<<10)), 431, "headers-too-large"},
		"no such path":  {s.send("GET", "/nope", ""), 404, "not-found"},
		"slash":         {s.send("GET", orders+"/", ""), 404, "not-found"},
		"no such order": {s.send("GET", orders+"/01890a5d-ac96-774b-bcce-b302099a8057", ""), 404, "not-found"},
		"odd order":     {s.send("GET", orders+"/%00%ff", ""), 404, "not-found"},
		"no customer":   {s.send("GET", orders, ""), 422, "validation"},
		"odd cursor":    {s.send("GET", orders+"?customer_id=c1&cursor=!!!", ""), 422, "validation"},
		"limit 0":       {s.send("GET", orders+"?customer_id=c1&limit=0", ""), 422, "validation"},
		"limit 101":     {s.send("GET", orders+"?customer_id=c1&limit=101", ""), 422, "validation"},
		"limit x":       {s.send("GET", orders+"?customer_id=c1&limit=x", ""), 422, "validation"},
		"misspelt":      {s.send("GET", orders+"?customer=c1", ""), 422, "validation"},
	} {
		if c.got.status != c.status || c.got.body.Type != "/problems/"+c.problem || c.got.body.Title == "" ||
			c.got.body.Instance == "" || c.got.body.RequestID == "" {
			t.Errorf("%s: got %d %s, want %d %s", name, c.got.status, c.got.raw, c.status, c.problem)
		}
	}
	wrong := post(line(`"A"`, "0"))
	if len(wrong.body.Errors) != 1 || wrong.body.Errors[0].Loc != "body.lines[0].quantity" || wrong.body.Errors[0].Msg == "" {
		t.Errorf("got %s", wrong.raw)
	}
	// Four of its digits turn up in random ids by chance.
	if strings.Contains(post(fmt.Sprintf(basket, "4111111111111111")).raw, "41111111") {
		t.Error("a card number is echoed")
	}
	if len(s.peers.Requests("POST /api/v1/reservations")) != 0 {
		t.Error("a bad request reached a peer")
	}
}

func TestMethodNotAllowed(t *testing.T) {
	s := newShop(t)
	a := s.send("DELETE", orders, "")
	s.want(a, 405, "method-not-allowed")
	if allow := a.header.Get("Allow"); !strings.Contains(allow, "GET") || !strings.Contains(allow, "POST") {
		t.Errorf("Allow is %q", allow)
	}
}

func TestRequestID(t *testing.T) {
	s := newShop(t)
	for given, kept := range map[string]bool{"abc.DEF-1_2": true, "with space": false, strings.Repeat("x", 129): false,
		"4111111111111111": false} {
		got := s.send("GET", "/livez", "", "X-Request-Id", given).header.Get("X-Request-Id")
		if (got == given) != kept || got == "" {
			t.Errorf("%q became %q", given, got)
		}
	}
}

func TestHealth(t *testing.T) {
	s := newShop(t)
	for _, path := range []string{"/livez", "/readyz", "/startupz"} {
		if a := s.send("GET", path, ""); a.status != 200 || a.body.Status != "ok" {
			t.Errorf("%s: %d %s", path, a.status, a.raw)
		}
	}
	s.fail("", 500)
	s.checkout("k", "tok_approve")
	if a := s.send("GET", "/readyz", ""); a.status != 200 {
		t.Errorf("a peer that is down makes it unready: %s", a.raw)
	}
	s.draining.Store(true)
	resp, err := http.Get(s.url + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 503 {
		t.Errorf("shutting down, ready gives %d", resp.StatusCode)
	}
	if a := s.send("GET", "/livez", ""); a.status != 200 {
		t.Errorf("shutting down, alive gives %d", a.status)
	}
}

func TestFaultEndpoints(t *testing.T) {
	s := newShop(t)
	admin := []string{"Authorization", "Bearer admin-token"}
	body := `{"type":"error","params":{"rate":1,"status":503},"match":{"method":"GET","route":"/api/v1/orders/{id}"},"ttl_s":60}`
	unauthorized := s.send("PUT", "/faults/f", body)
	s.want(unauthorized, 401, "unauthorized")
	if unauthorized.header.Get("WWW-Authenticate") != "Bearer" {
		t.Error("no WWW-Authenticate")
	}
	s.want(s.send("GET", "/faults", "", "Authorization", "Bearer admin-tokem"), 401, "unauthorized")
	s.want(s.send("PUT", "/faults/f", `{"type":"error","params":{},"ttl_s":60}`, admin...), 422, "validation")
	s.want(s.send("PUT", "/faults/f", `{"type":"error","params":{"rate":1},"ttl_s":901}`, admin...), 422, "validation")
	s.want(s.send("PUT", "/faults/UPPER", body, admin...), 422, "validation")

	lease := s.send("PUT", "/faults/f", body, admin...)
	s.want(lease, 200, "")
	for _, part := range []string{`"name":"f"`, `"ttl_s":60`, `"route":"/api/v1/orders/{id}"`, `"created_at":"`, `"expires_at":"`} {
		if !strings.Contains(lease.raw, part) {
			t.Errorf("%s is not in %s", part, lease.raw)
		}
	}
	if list := s.send("GET", "/faults", "", admin...); !strings.Contains(list.raw, `"name":"f"`) {
		t.Errorf("got %s", list.raw)
	}
	const path = orders + "/01890a5d-ac96-774b-bcce-b302099a8057"
	s.want(s.send("GET", path, ""), 503, "injected")
	s.want(s.send("GET", orders+"?customer_id=c1", ""), 200, "")
	if a := s.send("DELETE", "/faults/f", "", admin...); a.status != 204 {
		t.Errorf("got %d", a.status)
	}
	if a := s.send("DELETE", "/faults/f", "", admin...); a.status != 204 {
		t.Errorf("deleting again: %d", a.status)
	}
	s.want(s.send("GET", path, ""), 404, "not-found")

	// Without a match everything but health, faults and OpenAPI fails.
	s.want(s.send("PUT", "/faults/all", `{"type":"error","params":{"rate":1},"ttl_s":60}`, admin...), 200, "")
	s.want(s.checkout("k", "tok_approve"), 503, "injected")
	for _, path := range []string{"/livez", "/readyz", "/startupz", "/openapi.json"} {
		if a := s.send("GET", path, ""); a.status != 200 {
			t.Errorf("%s has faults: %d", path, a.status)
		}
	}
	s.want(s.send("GET", "/faults", "", admin...), 200, "")
}

func TestALeasesFileThatCannotBeWrittenIsTold(t *testing.T) {
	s := newShop(t, func(c *config.Config) { c.FaultsFile = filepath.Join(filepath.Dir(c.FaultsFile), "no", "faults.json") })
	for method, body := range map[string]string{"PUT": `{"type":"hang","ttl_s":60}`, "DELETE": ""} {
		a := s.send(method, "/faults/f", body, adminToken...)
		s.want(a, 503, "unavailable")
		if !strings.Contains(a.raw, "leases file") {
			t.Errorf("%s: got %s", method, a.raw)
		}
	}
	s.want(s.checkout("k", "tok_approve"), 201, "")
}

func TestWithoutATokenThereAreNoFaultEndpoints(t *testing.T) {
	s := newShop(t, func(c *config.Config) { c.AdminToken = "" })
	s.want(s.send("GET", "/faults", "", "Authorization", "Bearer "), 404, "not-found")
	s.want(s.send("PUT", "/faults/f", `{}`), 404, "not-found")
}

func TestOpenAPI(t *testing.T) {
	s := newShop(t)
	a := s.send("GET", "/openapi.json", "")
	var document struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Responses map[string]*struct {
				Links map[string]struct{ OperationID string }
			}
			Parameters []struct {
				Name     string
				Required bool
			}
		}
	}
	if err := json.NewDecoder(bytes.NewReader([]byte(a.raw))).Decode(&document); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(document.OpenAPI, "3.1") {
		t.Errorf("OpenAPI %s", document.OpenAPI)
	}
	create := document.Paths[orders]["post"]
	for _, status := range []string{"201", "202", "400", "402", "409", "413", "415", "422", "500", "503"} {
		if create.Responses[status] == nil {
			t.Errorf("checkout does not document %s", status)
		}
	}
	for _, status := range []string{"201", "202"} {
		links := create.Responses[status].Links
		if links["read"].OperationID != "get-order" || links["cancel"].OperationID != "cancel-order" {
			t.Errorf("%s has the links %v", status, links)
		}
	}
	for _, p := range create.Parameters {
		if p.Name == "Idempotency-Key" && !p.Required {
			t.Error("the key is documented as optional")
		}
	}
	for _, path := range []string{orders + "/{id}", orders + "/{id}/cancel", "/faults", "/faults/{name}", "/livez", "/readyz", "/startupz"} {
		if document.Paths[path] == nil {
			t.Errorf("%s is not documented", path)
		}
	}
}
