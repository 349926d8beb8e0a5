package httpapi

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"prove/acquirer/internal/fault"
	"prove/acquirer/internal/ledger"
)

func ask(t *testing.T, method, url, body string, token string) (int, map[string]any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode == http.StatusNoContent {
		_ = response.Body.Close()
		return response.StatusCode, nil
	}
	status, answer, err := read(t, response)
	if err != nil {
		t.Fatal(err)
	}
	return status, answer
}

func set(t *testing.T, server *httptest.Server, fault string) {
	t.Helper()
	if status, answer := ask(t, "PUT", server.URL+"/faults/f", fault, "token"); status != 200 {
		t.Fatalf("%d %v", status, answer)
	}
}

func TestFaultsNeedTheToken(t *testing.T) {
	server := serve(t, 0)
	for _, method := range []string{"PUT", "DELETE"} {
		if status, _ := ask(t, method, server.URL+"/faults/f", "{}", "wrong"); status != 401 {
			t.Errorf("%s: %d", method, status)
		}
	}
	if status, _ := ask(t, "GET", server.URL+"/faults", "", ""); status != 401 {
		t.Errorf("%d", status)
	}
	closed := httptest.NewServer((&API{Log: slog.New(slog.DiscardHandler), MaxBodyBytes: 1000}).Handler())
	defer closed.Close()
	if status, _ := ask(t, "GET", closed.URL+"/faults", "", ""); status != 404 {
		t.Errorf("without a token: %d", status)
	}
}

func TestWrongFaultsAreNamed(t *testing.T) {
	server := serve(t, 0)
	for field, body := range map[string]string{
		"type":            `{"type":"latency","ttl_s":5}`,
		"ttl_s":           `{"type":"declining","ttl_s":901}`,
		"params.delay_ms": `{"type":"slow","ttl_s":5}`,
		"params.rate":     `{"type":"declining","params":{"rate":2},"ttl_s":5}`,
		"params.period_s": `{"type":"declining","params":{"period_s":2},"ttl_s":5}`,
		"match":           `{"type":"declining","match":{"method":"GET"},"ttl_s":5}`,
	} {
		status, answer := ask(t, "PUT", server.URL+"/faults/f", body, "token")
		errors, _ := answer["errors"].([]any)
		if status != 422 || len(errors) != 1 || errors[0].(map[string]any)["loc"] != "body."+field {
			t.Errorf("%s: %d %v", field, status, answer)
		}
	}
	if status, _ := ask(t, "PUT", server.URL+"/faults/f", `{"type":"failing","ttl_s":5,"more":1}`, "token"); status != 400 {
		t.Errorf("%d", status)
	}
	if status, _ := ask(t, "PUT", server.URL+"/faults/UPPER", `{"type":"failing","ttl_s":5}`, "token"); status != 422 {
		t.Errorf("%d", status)
	}
}

func TestADecliningAcquirerLeavesWhatIsBooked(t *testing.T) {
	server := serve(t, 0)
	_, _, _ = post(t, server.URL+"/v1/charges", charge("before", "tok_approve"))
	set(t, server, `{"type":"declining","ttl_s":60}`)
	_, declined, _ := post(t, server.URL+"/v1/charges", charge("k", "tok_approve"))
	_, booked, _ := post(t, server.URL+"/v1/charges", charge("before", "tok_approve"))
	if declined["status"] != "declined" || declined["reason"] != "issuer_unavailable" || booked["status"] != "approved" {
		t.Errorf("%v, %v", declined, booked)
	}
	if status, list := ask(t, "GET", server.URL+"/faults", "", "token"); status != 200 || len(list["items"].([]any)) != 1 {
		t.Errorf("%d %v", status, list)
	}
	if status, _ := ask(t, "DELETE", server.URL+"/faults/f", "", "token"); status != 204 {
		t.Errorf("%d", status)
	}
	_, again, _ := post(t, server.URL+"/v1/charges", charge("k", "tok_approve"))
	_, after, _ := post(t, server.URL+"/v1/charges", charge("k2", "tok_approve"))
	if again["status"] != "declined" || after["status"] != "approved" {
		t.Errorf("%v, %v", again, after)
	}
}

func TestALostAnswerIsBookedAndToldOnTheSecondAsk(t *testing.T) {
	server := serve(t, 0)
	set(t, server, `{"type":"lose-answer","ttl_s":60}`)
	if _, body, err := post(t, server.URL+"/v1/charges", charge("k", "tok_approve")); err == nil {
		t.Fatalf("the first ask was answered: %v", body)
	}
	status, body, err := post(t, server.URL+"/v1/charges", charge("k", "tok_approve"))
	if err != nil || status != 200 || body["status"] != "approved" || len(entries(t, server, "")) != 1 {
		t.Fatalf("second ask: %d %v %v", status, body, err)
	}
}

func TestAShareFailsAndBooksNothing(t *testing.T) {
	server := serve(t, 0)
	set(t, server, `{"type":"failing","params":{"rate":0.5},"ttl_s":60}`)
	var got []int
	for n := range 4 {
		status, _, _ := post(t, server.URL+"/v1/charges", charge(fmt.Sprint("k", n), "tok_approve"))
		got = append(got, status)
	}
	if fmt.Sprint(got) != "[200 500 200 500]" || len(entries(t, server, "")) != 2 {
		t.Errorf("%v", got)
	}
}

func TestASlowAcquirerBooksAtOnce(t *testing.T) {
	server := serve(t, 0)
	set(t, server, `{"type":"slow","params":{"delay_ms":60000},"ttl_s":60}`)
	leaveOnceBooked(t, server, charge("k", "tok_approve"))
	if n := len(entries(t, server, "")); n != 1 {
		t.Errorf("%d entries", n)
	}
	set(t, server, `{"type":"slow","params":{"delay_ms":1},"ttl_s":60}`)
	if status, body, err := post(t, server.URL+"/v1/charges", charge("k", "tok_approve")); err != nil || status != 200 {
		t.Errorf("%d %v %v", status, body, err)
	}
}

func TestAnAnswerComesTwiceAndIsBookedOnce(t *testing.T) {
	server := serve(t, 0)
	set(t, server, `{"type":"answer-twice","ttl_s":60}`)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	body := charge("k", "tok_approve")
	fmt.Fprintf(conn, "POST /v1/charges HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	reader := bufio.NewReader(conn)
	var answers []string
	for range 2 {
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != 200 {
			t.Fatalf("%d %v", response.StatusCode, err)
		}
		answers = append(answers, string(content))
	}
	if answers[0] != answers[1] || !strings.Contains(answers[0], `"approved"`) || len(entries(t, server, "")) != 1 {
		t.Errorf("%v", answers)
	}
}

func TestAFlappingAcquirerIsUpForHalfOfEachPeriod(t *testing.T) {
	server := serve(t, 0)
	set(t, server, `{"type":"flapping","params":{"period_s":1},"ttl_s":60}`)
	seen := map[bool]bool{}
	for deadline := time.Now().Add(2 * time.Minute); len(seen) < 2; {
		if time.Now().After(deadline) {
			t.Fatalf("always the same: %v", seen)
		}
		_, _, err := post(t, server.URL+"/v1/charges", charge(fmt.Sprint(time.Now().UnixNano()), "tok_approve"))
		seen[err == nil] = true
	}
	if n := len(entries(t, server, "?limit=1")); n != 1 { // the witness always answers
		t.Errorf("%d entries", n)
	}
}

func TestAScenarioOutlivesARestartAndHasAnEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "faults.json")
	book, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "acquirer.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = book.Close() }()
	log := slog.New(slog.DiscardHandler)
	run := func() *httptest.Server {
		return httptest.NewServer((&API{Ledger: book, Log: log, MaxBodyBytes: 1000, AdminToken: "token",
			Faults: fault.Open(path, log), Ready: func() bool { return true }}).Handler())
	}
	first := run()
	set(t, first, `{"type":"failing","ttl_s":1}`)
	first.Close()
	second := run()
	defer second.Close()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		if time.Now().After(deadline) {
			t.Fatal("it has no end")
		}
		status, _, err := post(t, second.URL+"/v1/charges", charge(fmt.Sprint(time.Now().UnixNano()), "tok_approve"))
		if err == nil && status == 200 {
			break
		}
	}
	if _, list := ask(t, "GET", second.URL+"/faults", "", "token"); len(list["items"].([]any)) != 0 {
		t.Errorf("%v", list)
	}
}
