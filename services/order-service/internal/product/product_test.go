package product

import (
	"encoding/json"
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
		*asked = r.Method + " " + r.URL.Path + " " + string(raw)
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
	p, err := peer.New("product-service", u, 10*time.Second, peer.NewTransport(), peer.NewBudget(metrics), metrics)
	if err != nil {
		t.Fatal(err)
	}
	return Client{Peer: p, Hold: time.Minute}, asked
}

func TestReserve(t *testing.T) {
	lines := []order.Line{{SKU: "A", Quantity: 2, Name: "never sent", PriceMinor: 1}}
	c, asked := answering(t, 201, `{"id":"o","currency":"GBP","total_minor":500,
		"lines":[{"sku":"A","name":"Ä","quantity":2,"price_minor":250,"line_total_minor":500}]}`)
	r, err := c.Reserve(t.Context(), "o", lines)
	if err != nil || r.Currency != "GBP" || r.TotalMinor != 500 || len(r.Lines) != 1 ||
		r.Lines[0] != (order.Line{SKU: "A", Name: "Ä", Quantity: 2, PriceMinor: 250}) {
		t.Errorf("got %+v, %v", r, err)
	}
	if *asked != `POST /api/v1/reservations {"order_id":"o","lines":[{"sku":"A","quantity":2}],"ttl_s":60}` {
		t.Errorf("asked for %s", *asked)
	}

	c, _ = answering(t, 409, `{"type":"/problems/stock-short","sku":"A","available":1}`)
	var short *order.ShortError
	if _, err := c.Reserve(t.Context(), "o", lines); !errors.As(err, &short) || *short != (order.ShortError{SKU: "A", Available: 1}) {
		t.Errorf("got %v", err)
	}
	c, _ = answering(t, 422, `{"type":"/problems/unknown-sku","sku":"A"}`)
	var unknown *order.UnknownSKUError
	if _, err := c.Reserve(t.Context(), "o", lines); !errors.As(err, &unknown) || unknown.SKU != "A" {
		t.Errorf("got %v", err)
	}
	for _, answer := range []struct {
		status int
		body   string
		want   error // nil: an error that leaves everything open
	}{
		{409, `{"type":"/problems/reservation-gone"}`, order.ErrGone},
		{422, `{"type":"/problems/validation","detail":"no"}`, order.ErrRefused},
		{409, `{"type":"/problems/other"}`, nil},
		{404, `not JSON`, nil},
		{201, `not JSON`, nil},
		{301, ``, nil},
	} {
		c, _ := answering(t, answer.status, answer.body)
		_, err := c.Reserve(t.Context(), "o", lines)
		open := err != nil && !errors.Is(err, order.ErrGone) && !errors.Is(err, order.ErrRefused)
		if (answer.want != nil && !errors.Is(err, answer.want)) || (answer.want == nil && !open) {
			t.Errorf("%d %s: got %v", answer.status, answer.body, err)
		}
	}
}

func TestActions(t *testing.T) {
	actions := map[string]func(Client) error{
		"extend":  func(c Client) error { return c.Extend(t.Context(), "o") },
		"commit":  func(c Client) error { return c.Commit(t.Context(), "o") },
		"release": func(c Client) error { return c.Release(t.Context(), "o") },
	}
	for name, act := range actions {
		for _, answer := range []struct {
			status   int
			ok, gone bool
		}{{200, true, false}, {409, false, true}, {404, false, false}, {500, false, false}} {
			c, asked := answering(t, answer.status, `{}`)
			err := act(c)
			if (err == nil) != answer.ok || errors.Is(err, order.ErrGone) != answer.gone {
				t.Errorf("%s answered %d: got %v", name, answer.status, err)
			}
			want := "POST /api/v1/reservations/o/" + name + " "
			if name == "extend" {
				ttl, _ := json.Marshal(map[string]int{"ttl_s": 60})
				want += string(ttl)
			}
			if *asked != want {
				t.Errorf("asked for %s, want %s", *asked, want)
			}
		}
	}
}
