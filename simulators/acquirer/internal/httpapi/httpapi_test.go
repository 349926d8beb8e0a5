package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"prove/acquirer/internal/fault"
	"prove/acquirer/internal/ledger"
)

func serve(t *testing.T, slowFor time.Duration) *httptest.Server {
	t.Helper()
	book, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "acquirer.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = book.Close() })
	api := &API{
		Ledger: book, Log: slog.New(slog.DiscardHandler), SlowFor: slowFor, MaxBodyBytes: 1000,
		Ready: func() bool { return true }, AdminToken: "token",
		Faults: fault.Open(filepath.Join(t.TempDir(), "faults.json"), slog.New(slog.DiscardHandler)),
	}
	server := httptest.NewServer(api.Handler())
	t.Cleanup(server.Close)
	return server
}

func post(t *testing.T, url, body string) (int, map[string]any, error) {
	t.Helper()
	response, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	return read(t, response)
}

func get(t *testing.T, url string) (int, map[string]any) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	status, body, err := read(t, response)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

func read(t *testing.T, response *http.Response) (int, map[string]any, error) {
	t.Helper()
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	if err := json.Unmarshal(content, &body); err != nil {
		t.Fatalf("%d %s: %v", response.StatusCode, content, err)
	}
	return response.StatusCode, body, nil
}

func charge(key, token string) string {
	return `{"key":"` + key + `","amount_minor":100,"currency":"GBP","method_token":"` + token + `","reference":"o1"}`
}

func entries(t *testing.T, server *httptest.Server, query string) []any {
	t.Helper()
	_, page := get(t, server.URL+"/v1/ledger"+query)
	return page["entries"].([]any)
}

func TestTokensDecideTheOutcome(t *testing.T) {
	server := serve(t, time.Millisecond)
	for token, want := range map[string][2]string{
		"tok_approve":       {"approved", ""},
		"tok_decline":       {"declined", "card_declined"},
		"tok_decline_funds": {"declined", "insufficient_funds"},
		"tok_slow":          {"approved", ""},
	} {
		status, first, err := post(t, server.URL+"/v1/charges", charge(token, token))
		if err != nil || status != 200 || first["status"] != want[0] || first["reason"] != want[1] {
			t.Errorf("%s: %d %v %v", token, status, first, err)
		}
		_, again, _ := post(t, server.URL+"/v1/charges", charge(token, token))
		_, found := get(t, server.URL+"/v1/charges/"+token)
		if again["charge_id"] != first["charge_id"] || again["created_at"] != first["created_at"] ||
			found["charge_id"] != first["charge_id"] {
			t.Errorf("%s: first %v, again %v, found %v", token, first, again, found)
		}
	}
	if n := len(entries(t, server, "")); n != 4 {
		t.Errorf("%d entries", n)
	}
}

func TestAnUnknownOutcomeIsChargedAndToldOnTheSecondAsk(t *testing.T) {
	server := serve(t, 0)
	if _, body, err := post(t, server.URL+"/v1/charges", charge("k", "tok_unknown")); err == nil {
		t.Fatalf("the first ask was answered: %v", body)
	}
	if n := len(entries(t, server, "")); n != 1 {
		t.Fatalf("%d entries after the dropped answer", n)
	}
	status, body, err := post(t, server.URL+"/v1/charges", charge("k", "tok_unknown"))
	if err != nil || status != 200 || body["status"] != "approved" || len(entries(t, server, "")) != 1 {
		t.Fatalf("second ask: %d %v %v", status, body, err)
	}
}

func TestASlowChargeIsBookedEvenIfTheCallerLeaves(t *testing.T) {
	server := serve(t, time.Hour)
	leaveOnceBooked(t, server, charge("k", "tok_slow"))
	if status, body := get(t, server.URL+"/v1/charges/k"); status != 200 || body["status"] != "approved" {
		t.Fatalf("%d %v", status, body)
	}
}

// leaveOnceBooked asks for a charge, and hangs up once it is in the ledger: before it is answered.
func leaveOnceBooked(t *testing.T, server *httptest.Server, charge string) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	request, err := http.NewRequestWithContext(ctx, "POST", server.URL+"/v1/charges", strings.NewReader(charge))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	ended := make(chan error, 1)
	go func() {
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		ended <- err
	}()
	for deadline := time.Now().Add(2 * time.Minute); len(entries(t, server, "")) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it was never booked")
		}
	}
	leave()
	if err := <-ended; err == nil {
		t.Error("answered at once")
	}
}

func TestRefundAndLedgerPages(t *testing.T) {
	server := serve(t, 0)
	_, _, _ = post(t, server.URL+"/v1/charges", charge("c", "tok_approve"))
	for range 2 {
		status, body, err := post(t, server.URL+"/v1/refunds", `{"key":"r","charge_key":"c","amount_minor":100}`)
		if err != nil || status != 200 || body["status"] != "approved" || body["currency"] != "GBP" {
			t.Fatalf("%d %v %v", status, body, err)
		}
	}
	_, first := get(t, server.URL+"/v1/ledger?limit=1")
	rest := entries(t, server, "?limit=1&after=1")
	if first["next"] != float64(1) || len(rest) != 1 || rest[0].(map[string]any)["kind"] != "refund" {
		t.Fatalf("first %v, rest %v", first, rest)
	}
}

func TestBadInputIsRefused(t *testing.T) {
	server := serve(t, 0)
	_, _, _ = post(t, server.URL+"/v1/charges", charge("used", "tok_approve"))
	cases := []struct {
		path, body string
		want       int
	}{
		{"/v1/charges", "{", 400},
		{"/v1/charges", "{}{}", 400},
		{"/v1/charges", `{"card":"4242"}`, 400},
		{"/v1/charges", strings.Repeat(" ", 2000) + "{}", 413},
		{"/v1/charges", charge("", "tok_approve"), 422},
		{"/v1/charges", charge("k", "tok_other"), 422},
		{"/v1/charges", strings.Replace(charge("k", "tok_approve"), "100", "0", 1), 422},
		{"/v1/charges", strings.Replace(charge("k", "tok_approve"), "GBP", "pounds", 1), 422},
		{"/v1/charges", strings.Replace(charge("used", "tok_approve"), "100", "101", 1), 409},
		{"/v1/refunds", `{"key":"r","charge_key":"none","amount_minor":1}`, 404},
		{"/v1/refunds", `{"key":"r","charge_key":"used","amount_minor":101}`, 409},
		{"/v1/refunds", `{"key":"r","charge_key":"used","amount_minor":-1}`, 422},
	}
	for _, c := range cases {
		status, body, err := post(t, server.URL+c.path, c.body)
		if err != nil || status != c.want || body["status"] != float64(c.want) {
			t.Errorf("%s %.40s: %d %v %v, want %d", c.path, c.body, status, body, err, c.want)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=1001", "?after=x", "?after=-1"} {
		if status, _ := get(t, server.URL+"/v1/ledger"+query); status != 422 {
			t.Errorf("%s: %d", query, status)
		}
	}
}
