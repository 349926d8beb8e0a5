package payment

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"prove/order-service/internal/order"
	"prove/order-service/internal/peer"
	"prove/order-service/internal/telemetry"
)

// answering is a client of a peer that gives one answer; asked is what it was asked last.
func answering(t *testing.T, status int, body string) (c Client, asked *string) {
	t.Helper()
	asked = new(string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		*asked = r.Method + " " + r.URL.Path + " " + r.Header.Get("Idempotency-Key") + " " + r.Header.Get("Prefer") + " " + string(raw)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := telemetry.NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	p, err := peer.New("payment-service", u, time.Second, peer.NewTransport(), peer.NewBudget(metrics), metrics)
	if err != nil {
		t.Fatal(err)
	}
	return Client{Peer: p}, asked
}

var charge = order.Charge{Key: "key", OrderID: "o", AmountMinor: 500, Currency: "GBP", Method: "tok_a"}

const body = ` key wait=9 {"order_id":"o","amount_minor":500,"currency":"GBP","method_token":"tok_a"}`

func TestCharge(t *testing.T) {
	for _, c := range []struct {
		status int
		answer string
		want   order.Payment
		err    bool
		is     error
	}{
		{201, `{"id":"p","status":"captured"}`, order.Payment{ID: "p", Captured: true}, false, nil},
		{200, `{"id":"p","status":"captured"}`, order.Payment{ID: "p", Captured: true}, false, nil},
		{202, `{"id":"p","status":"pending"}`, order.Payment{ID: "p"}, false, nil},
		{201, `{"id":"p","status":"failed"}`, order.Payment{ID: "p", Declined: true, Reason: "failed"}, false, nil},
		{201, `{"id":"p","status":"declined","decline_reason":"r"}`, order.Payment{ID: "p", Declined: true, Reason: "r"}, false, nil},
		{402, `{"type":"/problems/declined","payment_id":"p","reason":"r"}`, order.Payment{ID: "p", Declined: true, Reason: "r"}, false, nil},
		{402, `{"type":"/problems/injected"}`, order.Payment{}, true, nil},
		{402, `not JSON`, order.Payment{}, true, nil},
		{409, `{"type":"/problems/cancelled","payment_id":"p"}`, order.Payment{ID: "p", Declined: true, Reason: "cancelled"}, false, nil},
		{409, `{"type":"/problems/conflict"}`, order.Payment{}, true, nil},
		{422, `{"type":"/problems/validation","detail":"no"}`, order.Payment{}, true, order.ErrRefused},
		{422, `{"type":"/problems/key-reused"}`, order.Payment{}, true, nil},
		{422, `{"type":"/problems/injected"}`, order.Payment{}, true, nil},
		{422, ``, order.Payment{}, true, nil},
		{201, `{"id":"p","status":"dancing"}`, order.Payment{}, true, nil},
		{201, `not JSON`, order.Payment{}, true, nil},
		{500, ``, order.Payment{}, true, nil},
	} {
		client, asked := answering(t, c.status, c.answer)
		got, err := client.Charge(t.Context(), charge, 9*time.Second)
		if got != c.want || (err != nil) != c.err || errors.Is(err, order.ErrRefused) != (c.is != nil) {
			t.Errorf("%d %s: got %+v, %v", c.status, c.answer, got, err)
		}
		if *asked != "POST /api/v1/payments"+body {
			t.Errorf("asked for %s", *asked)
		}
	}
}

func TestCancel(t *testing.T) {
	for _, c := range []struct {
		status int
		answer string
		done   bool
		err    bool
		is     error
	}{
		{200, `{"id":"p","status":"cancelled"}`, true, false, nil},
		{200, `{"id":"p","status":"declined"}`, true, false, nil},
		{202, `{"id":"p","status":"refund_pending"}`, false, false, nil},
		{422, `{"type":"/problems/validation"}`, false, true, order.ErrRefused},
		{422, `{"type":"/problems/key-reused"}`, false, true, nil},
		{422, `{"type":"/problems/injected"}`, false, true, nil},
		{404, `{"type":"/problems/not-found"}`, false, true, nil},
		{503, ``, false, true, nil},
	} {
		client, asked := answering(t, c.status, c.answer)
		done, err := client.Cancel(t.Context(), charge, 9*time.Second)
		if done != c.done || (err != nil) != c.err || errors.Is(err, order.ErrRefused) != (c.is != nil) {
			t.Errorf("%d %s: got %v, %v", c.status, c.answer, done, err)
		}
		if *asked != "POST /api/v1/payments/cancel"+body {
			t.Errorf("asked for %s", *asked)
		}
	}
}

// Waiting for the acquirer is no reason to give an attempt up.
func TestTheAttemptOutlastsTheWait(t *testing.T) {
	var left string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		left = r.Header.Get(peer.TimeoutHeader)
		_, _ = io.WriteString(w, `{"status":"captured"}`)
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := telemetry.NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	p, err := peer.New("payment-service", u, time.Second, peer.NewTransport(), peer.NewBudget(metrics), metrics)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (Client{Peer: p}).Charge(t.Context(), charge, 100*time.Second); err != nil {
		t.Fatal(err)
	}
	if len(left) != len("100000") { // milliseconds: more than 100 s
		t.Errorf("the attempt has %s ms", left)
	}
}
