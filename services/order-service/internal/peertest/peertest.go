// Package peertest plays the Product and the Payment Service for tests: fakes behind real HTTP
// servers, with a memory good enough to check that stock and money come out right.
package peertest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
)

// Price of every product, in minor units of GBP.
const Price = 250

// Peers are the two fakes on one address.
type Peers struct {
	URL *url.URL

	mu           sync.Mutex
	stock        map[string]int64
	reservations map[string]*reservation
	payments     map[string]*payment // by idempotency key
	requests     map[string][]*http.Request
	intercept    func(http.ResponseWriter, *http.Request) bool
}

type reservation struct {
	lines  []line
	status string
}

type line struct {
	SKU      string `json:"sku"`
	Name     string `json:"name"`
	Quantity int64  `json:"quantity"`
	Price    int64  `json:"price_minor"`
}

type payment struct {
	ID      string `json:"id"`
	OrderID string `json:"order_id"`
	Amount  int64  `json:"amount_minor"`
	Token   string `json:"-"`
	Status  string `json:"status"`
	Reason  string `json:"decline_reason"`
	Asked   int    `json:"-"`
}

// New starts the fakes with the given stock; they end with the test.
func New(t testing.TB, stock map[string]int64) *Peers {
	p := &Peers{
		stock: stock, reservations: map[string]*reservation{}, payments: map[string]*payment{},
		requests: map[string][]*http.Request{},
	}
	mux := http.NewServeMux()
	handle := func(pattern string, h http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body) // before the lock: its sender may be stopped meanwhile
			if err != nil {
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			p.mu.Lock()
			p.requests[pattern] = append(p.requests[pattern], r)
			intercept := p.intercept
			p.mu.Unlock()
			if intercept != nil && intercept(w, r) {
				return
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			h(w, r)
		})
	}
	handle("POST /api/v1/reservations", p.reserve)
	handle("POST /api/v1/reservations/{id}/{action}", p.act)
	handle("POST /api/v1/payments", p.pay)
	handle("POST /api/v1/payments/cancel", p.cancel)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p.URL, _ = url.Parse(server.URL)
	return p
}

// Intercept lets f answer first; if it returns false the fake answers. nil ends it.
func (p *Peers) Intercept(f func(http.ResponseWriter, *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.intercept = f
}

// Stock of a product that is free.
func (p *Peers) Stock(sku string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stock[sku]
}

// Reservation is the state of an order's reservation, "" when there is none.
func (p *Peers) Reservation(orderID string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r, ok := p.reservations[orderID]; ok {
		return r.status
	}
	return ""
}

// Payments counts the payments in a state.
func (p *Peers) Payments(status string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, pay := range p.payments {
		if pay.Status == status {
			n++
		}
	}
	return n
}

// Requests that came for a pattern, as it was registered.
func (p *Peers) Requests(pattern string) []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*http.Request(nil), p.requests[pattern]...)
}

// Settle decides the payments that are pending; those that are being cancelled are refunded at once.
func (p *Peers) Settle(status, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pay := range p.payments {
		switch {
		case pay.Status == "pending":
			pay.Status, pay.Reason = status, reason
		case pay.Status == "cancelling" && status == "captured":
			pay.Status = "refunded"
		case pay.Status == "cancelling":
			pay.Status, pay.Reason = status, reason
		}
	}
}

func (p *Peers) reserve(w http.ResponseWriter, r *http.Request) {
	var body struct {
		OrderID string `json:"order_id"`
		Lines   []line `json:"lines"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		problem(w, 400, map[string]any{"type": "/problems/malformed"})
		return
	}
	res, again := p.reservations[body.OrderID]
	if again && res.status == "released" {
		problem(w, 409, map[string]any{"type": "/problems/reservation-gone"})
		return
	}
	total := int64(0)
	for i, l := range body.Lines {
		have, known := p.stock[l.SKU]
		if !known {
			problem(w, 422, map[string]any{"type": "/problems/unknown-sku", "sku": l.SKU})
			return
		}
		if !again && have < l.Quantity {
			problem(w, 409, map[string]any{"type": "/problems/stock-short", "sku": l.SKU, "available": have})
			return
		}
		body.Lines[i].Name, body.Lines[i].Price = "Name of "+l.SKU, Price
		total += l.Quantity * Price
	}
	if !again {
		p.move(body.Lines, -1)
		p.reservations[body.OrderID] = &reservation{lines: body.Lines, status: "held"}
	}
	answer(w, 201, map[string]any{"id": body.OrderID, "status": "held", "currency": "GBP",
		"total_minor": total, "lines": body.Lines})
}

func (p *Peers) move(lines []line, sign int64) {
	for _, l := range lines {
		p.stock[l.SKU] += sign * l.Quantity
	}
}

func (p *Peers) act(w http.ResponseWriter, r *http.Request) {
	res, ok := p.reservations[r.PathValue("id")]
	action := r.PathValue("action")
	switch {
	case action == "release":
		if !ok {
			res = &reservation{}
			p.reservations[r.PathValue("id")] = res
		}
		if res.status == "held" || res.status == "committed" {
			p.move(res.lines, 1)
		}
		res.status = "released"
	case !ok:
		problem(w, 404, map[string]any{"type": "/problems/not-found"})
		return
	case res.status == "gone" || res.status == "released":
		problem(w, 409, map[string]any{"type": "/problems/reservation-gone"})
		return
	case action == "commit":
		res.status = "committed"
	}
	answer(w, 200, map[string]any{"id": r.PathValue("id"), "status": res.status})
}

// Lapse makes a reservation expire and its stock go to somebody else.
func (p *Peers) Lapse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.reservations {
		r.status = "gone"
	}
}

// chargeBody is what a charge and its cancellation have in common.
type chargeBody struct {
	OrderID string `json:"order_id"`
	Amount  int64  `json:"amount_minor"`
	Token   string `json:"method_token"`
}

// known is the payment of a request's key; answered tells that the request is none.
func (p *Peers) known(w http.ResponseWriter, r *http.Request) (pay *payment, body chargeBody, answered bool) {
	key := r.Header.Get("Idempotency-Key")
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || key == "" {
		problem(w, 400, map[string]any{"type": "/problems/malformed"})
		return nil, body, true
	}
	pay = p.payments[key]
	switch {
	case pay != nil && (pay.OrderID != body.OrderID || pay.Amount != body.Amount || pay.Token != body.Token):
		problem(w, 422, map[string]any{"type": "/problems/key-reused"})
	case pay == nil && !tokens[body.Token]:
		problem(w, 422, map[string]any{"type": "/problems/validation", "detail": "unknown token"})
	default:
		return pay, body, false
	}
	return nil, body, true
}

var tokens = map[string]bool{"tok_approve": true, "tok_unknown": true, "tok_decline": true, "tok_slow": true}

// pay knows the test tokens: tok_slow stays pending until Settle, tok_unknown charges and hangs up
// the first time.
func (p *Peers) pay(w http.ResponseWriter, r *http.Request) {
	pay, body, answered := p.known(w, r)
	if answered {
		return
	}
	if pay == nil {
		key := r.Header.Get("Idempotency-Key")
		pay = &payment{ID: "pay-" + key, OrderID: body.OrderID, Amount: body.Amount, Token: body.Token, Status: "captured"}
		switch body.Token {
		case "tok_decline":
			pay.Status, pay.Reason = "declined", "card_declined"
		case "tok_slow":
			pay.Status = "pending"
		}
		p.payments[key] = pay
	}
	pay.Asked++
	switch {
	case pay.Token == "tok_unknown" && pay.Asked == 1:
		panic(http.ErrAbortHandler)
	case pay.Status == "declined":
		problem(w, 402, map[string]any{"type": "/problems/declined", "reason": pay.Reason, "payment_id": pay.ID})
	case pay.Status == "pending":
		answer(w, 202, pay)
	case pay.Status == "cancelled" || pay.Status == "cancelling":
		problem(w, 409, map[string]any{"type": "/problems/cancelled", "payment_id": pay.ID})
	default: // the first answer, even if it is refunded since
		first := *pay
		first.Status = "captured"
		answer(w, 201, first)
	}
}

func (p *Peers) cancel(w http.ResponseWriter, r *http.Request) {
	pay, body, answered := p.known(w, r)
	if answered {
		return
	}
	if pay == nil {
		key := r.Header.Get("Idempotency-Key")
		pay = &payment{ID: "pay-" + key, OrderID: body.OrderID, Amount: body.Amount, Token: body.Token, Status: "cancelled"}
		p.payments[key] = pay
	}
	switch pay.Status {
	case "pending", "cancelling":
		pay.Status = "cancelling"
		answer(w, 202, pay)
		return
	case "captured":
		pay.Status = "refunded"
	}
	answer(w, 200, pay)
}

func answer(w http.ResponseWriter, status int, body any) { write(w, "application/json", status, body) }

func problem(w http.ResponseWriter, status int, body map[string]any) {
	write(w, "application/problem+json", status, body)
}

func write(w http.ResponseWriter, contentType string, status int, body any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	// A client that hung up does not matter to the fake.
	_ = json.NewEncoder(w).Encode(body)
}
