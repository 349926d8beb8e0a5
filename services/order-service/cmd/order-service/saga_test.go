package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"prove/order-service/internal/config"
	"prove/order-service/internal/order"
)

// hold lets requests whose path ends so arrive, and hang until release is called.
func (s *shop) hold(suffix string) (reached <-chan struct{}, release func()) {
	arrived, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.peers.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, suffix) {
			once.Do(func() { close(arrived) })
			<-free
		}
		return false
	})
	release = sync.OnceFunc(func() { close(free) })
	s.Cleanup(release)
	return arrived, release
}

func (s *shop) only() string {
	s.Helper()
	list := s.send("GET", orders+"?customer_id=c1", "")
	if len(list.body.Items) != 1 {
		s.Fatalf("%d orders: %s", len(list.body.Items), list.raw)
	}
	return list.body.Items[0].ID
}

// Whatever the checkout is doing when its customer cancels: it loses, and says so.
func TestCancelDuringTheCheckout(t *testing.T) {
	for _, c := range []struct{ at, token string }{
		{"/reservations", "tok_approve"}, {"/payments", "tok_approve"}, {"/payments", "tok_decline"},
		{"/payments", "tok_other"}, {"/commit", "tok_approve"},
	} {
		t.Run(c.at[1:]+" "+c.token, func(t *testing.T) {
			s := newShop(t)
			reached, release := s.hold(c.at)
			first := make(chan answer, 1)
			go func() { first <- s.checkout("k", c.token) }()
			<-reached
			id := s.only()
			cancelled := s.send("POST", orders+"/"+id+"/cancel", "")
			if (cancelled.status != 200 && cancelled.status != 202) || cancelled.body.Status != "cancelled" {
				t.Fatalf("got %d %s", cancelled.status, cancelled.raw)
			}
			release()
			got := <-first
			s.want(got, 409, "order-cancelled")
			again := s.checkout("k", c.token)
			if again.raw != got.raw || again.header.Get("Idempotency-Replayed") != "true" {
				t.Errorf("repeated: %s\nfirst: %s", again.raw, got.raw)
			}
			s.eventually("everything is taken back", func() bool {
				return s.peers.Payments("captured") == 0 && s.peers.Stock("A") == 100 && !s.unfinished()
			})
			if h := s.send("GET", orders+"/"+id, "").history(); !strings.HasSuffix(h, "cancelled/release cancelled/") {
				t.Errorf("history is %s", h)
			}
		})
	}
}

func TestCancelOfAnUnsettledOrder(t *testing.T) {
	s := newShop(t)
	a := s.checkout("k", "tok_slow")
	s.want(a, 202, "")
	c := s.send("POST", orders+"/"+a.body.ID+"/cancel", "")
	if c.status != 202 || c.body.Status != "cancelled" {
		t.Fatalf("got %d %s", c.status, c.raw)
	}
	s.want(s.checkout("k", "tok_slow"), 409, "order-cancelled")
	s.peers.Settle("captured", "") // after all
	s.eventually("the money is back", func() bool { return s.peers.Payments("refunded") == 1 && !s.unfinished() })
	if s.peers.Stock("A") != 100 {
		t.Errorf("%d left in stock", s.peers.Stock("A"))
	}
}

func TestAnUnknownPaymentIsGivenUp(t *testing.T) {
	s := newShop(t, func(c *config.Config) { c.PaymentGiveUp = time.Second })
	a := s.checkout("k", "tok_slow")
	s.want(a, 202, "")
	s.until(a.body.ID, "rejected")
	s.want(s.checkout("k", "tok_slow"), 402, "payment-timeout")
	s.eventually("the charge is being cancelled", func() bool { return s.peers.Payments("cancelling") == 1 })
	s.peers.Settle("captured", "")
	s.eventually("the money is back", func() bool { return s.peers.Payments("refunded") == 1 && !s.unfinished() })
	if s.peers.Stock("A") != 100 {
		t.Errorf("%d left in stock", s.peers.Stock("A"))
	}
}

// The reservation that was asked for first arrives when its customer has long been refused.
func TestARefusalAfterAnAttemptWithoutAnswerHoldsNothing(t *testing.T) {
	s := newShop(t)
	var mu sync.Mutex
	var late []byte
	s.peers.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case !strings.HasSuffix(r.URL.Path, "/reservations"):
			return false
		case late == nil:
			late, _ = io.ReadAll(r.Body)
			w.WriteHeader(http.StatusBadGateway)
		default:
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"type":"/problems/stock-short","sku":"A","available":0}`)
		}
		return true
	})
	refused := s.checkout("k", "tok_approve")
	s.want(refused, 409, "stock-short")
	s.eventually("nothing is left to do", func() bool { return !s.unfinished() })
	s.peers.Intercept(nil)
	resp, err := http.Post(s.peers.URL.String()+"/api/v1/reservations", "application/json", bytes.NewReader(late))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusConflict || s.peers.Stock("A") != 100 {
		t.Errorf("the late attempt got %d and left %d in stock", resp.StatusCode, s.peers.Stock("A"))
	}
	if h := s.send("GET", orders+"/"+refused.body.OrderID, "").history(); h != "pending/reserve rejected/release rejected/" {
		t.Errorf("history is %s", h)
	}
	if again := s.checkout("k", "tok_approve"); again.raw != refused.raw {
		t.Errorf("repeated: %s\nfirst: %s", again.raw, refused.raw)
	}
}

// The acquirer was slow, so the Payment Service answers at the last moment: the charge is made, and
// its order must not be rejected as if nobody had been asked.
func TestAChargeAnsweredAsTheCustomersTimeEndsIsNotTakenForNeverSent(t *testing.T) {
	var over atomic.Bool
	s := newShopWith(t, func(o *order.Service) { o.Payments = &lastMoment{Payments: o.Payments, over: &over} })
	s.peers.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/payments") {
			over.Store(true)
		}
		return false
	})
	s.want(s.checkout("k", "tok_approve"), 201, "")
	s.eventually("nothing is left to do", func() bool { return !s.unfinished() })
	if got := s.until(s.only(), "confirmed"); s.peers.Payments("captured") != 1 || s.peers.Stock("A") == 100 {
		t.Errorf("the charge was made, and the order is %s", got.raw)
	}
}

// lastMoment lets the time of the first charge end once it has been answered.
type lastMoment struct {
	order.Payments
	over  *atomic.Bool
	asked atomic.Bool
}

func (p *lastMoment) Charge(ctx context.Context, c order.Charge, wait time.Duration) (order.Payment, error) {
	if p.asked.Swap(true) {
		return p.Payments.Charge(ctx, c, wait)
	}
	return p.Payments.Charge(ending{ctx, p.over}, c, wait)
}

// ending has ended for who asks, and interrupts nobody.
type ending struct {
	context.Context
	over *atomic.Bool
}

func (c ending) Err() error {
	if c.over.Load() {
		return context.DeadlineExceeded
	}
	return c.Context.Err()
}

// broken panics the first time that it is asked for something.
type broken struct {
	order.Stock
	order.Payments
	once sync.Once
	what string
}

func (b *broken) maybe(what string) {
	if b.what == what {
		b.once.Do(func() { panic("a bug in " + what) })
	}
}

func (b *broken) Reserve(ctx context.Context, id string, lines []order.Line) (order.Reservation, error) {
	b.maybe("reserve")
	return b.Stock.Reserve(ctx, id, lines)
}

func (b *broken) Commit(ctx context.Context, id string) error {
	b.maybe("commit")
	return b.Stock.Commit(ctx, id)
}

func (b *broken) Cancel(ctx context.Context, c order.Charge, wait time.Duration) (bool, error) {
	b.maybe("cancel")
	return b.Payments.Cancel(ctx, c, wait)
}

// The process lives on after a panic in a request, and nobody else would take up what it owns.
func TestAPanicLosesNothing(t *testing.T) {
	for _, what := range []string{"reserve", "commit", "cancel"} {
		t.Run(what, func(t *testing.T) {
			s := newShopWith(t, func(o *order.Service) {
				b := &broken{Stock: o.Stock, Payments: o.Payments, what: what}
				o.Stock, o.Payments = b, b
			})
			a := s.checkout("k", "tok_approve")
			if what != "cancel" {
				s.want(a, 500, "internal")
				s.until(s.only(), "confirmed")
				s.eventually("the key has its answer", func() bool { return s.checkout("k", "tok_approve").status == 201 })
				return
			}
			s.want(a, 201, "")
			s.want(s.send("POST", orders+"/"+a.body.ID+"/cancel", ""), 500, "internal")
			s.until(a.body.ID, "cancelled")
			s.eventually("the money is back", func() bool { return s.peers.Payments("refunded") == 1 && !s.unfinished() })
		})
	}
}

// unsure is a store that fails, before or after it did what it was asked.
type unsure struct {
	order.Store
	mu     sync.Mutex
	fail   order.Status // a save that records this fails; "create": so does Create
	after  bool
	failed int
}

var errStore = errors.New("disk full")

func (u *unsure) hit(what order.Status) (hit, after bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if hit = u.fail == what; hit {
		u.failed++
		u.fail = ""
	}
	return hit, u.after
}

func (u *unsure) Create(ctx context.Context, o *order.Order, fp []byte, since time.Time) (*order.Prior, error) {
	hit, after := u.hit("create")
	if hit && !after {
		return nil, errStore
	}
	prior, err := u.Store.Create(ctx, o, fp, since)
	if hit && err == nil {
		err = errStore
	}
	return prior, err
}

func (u *unsure) Save(ctx context.Context, o *order.Order, a *order.Answer) error {
	hit, after := u.hit(o.Status)
	if hit && !after {
		return errStore
	}
	err := u.Store.Save(ctx, o, a)
	if hit && err == nil {
		err = errStore
	}
	return err
}

func TestASaveThatFailsLosesNothing(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, c := range []struct {
			fail   order.Status
			token  string
			first  int
			status string
		}{
			{"create", "tok_approve", 503, "confirmed"},
			{order.Reserved, "tok_approve", 202, "confirmed"},
			{order.Paid, "tok_approve", 202, "confirmed"},
			{order.Confirmed, "tok_approve", 202, "confirmed"},
			{order.Rejected, "tok_decline", 202, "rejected"},
		} {
			t.Run(fmt.Sprintf("%s, recorded %v", c.fail, after), func(t *testing.T) {
				var u *unsure
				s := newShopWith(t, func(o *order.Service) {
					u = &unsure{Store: o.Store, fail: c.fail, after: after}
					o.Store = u
				})
				first := s.checkout("k", c.token)
				s.want(first, c.first, "")
				var last answer
				s.eventually("the key has its final answer", func() bool {
					last = s.checkout("k", c.token)
					return last.status == 201 || last.status == 402
				})
				if again := s.checkout("k", c.token); again.raw != last.raw || again.status != last.status {
					t.Errorf("answered %s\nand then %s", last.raw, again.raw)
				}
				s.eventually("nothing is left to do", func() bool { return !s.unfinished() })
				captured, stock := 1, int64(98)
				if c.status == "rejected" {
					captured, stock = 0, 100
				}
				if u.failed != 1 || s.peers.Payments("captured") != captured || s.peers.Stock("A") != stock {
					t.Errorf("%d failures, %d captured, %d left in stock", u.failed, s.peers.Payments("captured"), s.peers.Stock("A"))
				}
			})
		}
	}
}

func TestOverloadIsShed(t *testing.T) {
	s := newShop(t, func(c *config.Config) { c.MaxCheckouts = 2 })
	reached, release := s.hold("/payments")
	answers := make(chan answer, 2)
	for i := range 2 {
		go func() { answers <- s.checkout(fmt.Sprint(i), "tok_approve") }()
	}
	<-reached
	s.eventually("both are at it", func() bool { return len(s.peers.Requests("POST /api/v1/payments")) == 2 })
	shed := s.checkout("more", "tok_approve")
	s.want(shed, 503, "overloaded")
	if shed.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.want(s.send("GET", orders+"?customer_id=c1", ""), 200, "")
	s.want(s.send("GET", "/readyz", ""), 200, "")
	release()
	for range 2 {
		s.want(<-answers, 201, "")
	}
	if s.peers.Payments("captured") != 2 || len(s.send("GET", orders+"?customer_id=c1", "").body.Items) != 2 {
		t.Error("what was shed left a trace")
	}
	s.want(s.checkout("more", "tok_approve"), 201, "")
}

func TestNoTimeLeftIsNotBegun(t *testing.T) {
	s := newShop(t)
	a := s.send("POST", orders, fmt.Sprintf(basket, "tok_approve"), "Idempotency-Key", "k",
		"x-envoy-expected-rq-timeout-ms", "10")
	s.want(a, 503, "overloaded")
	if list := s.send("GET", orders+"?customer_id=c1", ""); len(list.body.Items) != 0 {
		t.Errorf("got %s", list.raw)
	}
}

// A payment that hangs is given up when the caller's time is, and asked for again when it is back.
func TestTheTimeLeftTravels(t *testing.T) {
	s := newShop(t)
	s.peers.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/payments") {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return true
		}
		return false
	})
	a := s.send("POST", orders, fmt.Sprintf(basket, "tok_approve"), "Idempotency-Key", "k",
		"x-envoy-expected-rq-timeout-ms", "3000")
	s.want(a, 202, "") // the charge may have arrived
	s.peers.Intercept(nil)
	s.until(a.body.ID, "confirmed")
	first := s.peers.Requests("POST /api/v1/payments")[0]
	given := first.Header.Get("x-envoy-expected-rq-timeout-ms")
	if ms, err := strconv.Atoi(given); err != nil || ms < 1 || ms > 3000 {
		t.Errorf("the payment was given %s ms of 3000", given)
	}
}
