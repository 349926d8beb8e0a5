package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"prove/order-service/internal/peertest"
)

var adminToken = []string{"Authorization", "Bearer admin-token"}

func (s *shop) set(name, fault string) {
	s.Helper()
	s.want(s.send("PUT", "/faults/"+name, fault, adminToken...), 200, "")
}

func TestAFaultOfOneCustomersCheckouts(t *testing.T) {
	s := newShop(t)
	s.set("c", `{"type":"error","params":{"rate":1},"match":{"customer":"c1"},"ttl_s":60}`)
	other := strings.Replace(fmt.Sprintf(basket, "tok_approve"), `"c1"`, `"c2"`, 1)
	s.want(s.checkout("k", "tok_approve"), 503, "injected")
	// Its handler reads the body that was looked at.
	s.want(s.send("POST", orders, other, "Idempotency-Key", "k2"), 201, "")
	s.want(s.send("GET", orders+"?customer_id=c1", ""), 503, "injected")
	s.want(s.send("GET", orders+"?customer_id=c2", ""), 200, "")
}

func TestAFaultOfOneProduct(t *testing.T) {
	s := newShop(t)
	s.set("b", `{"type":"error","params":{"rate":1,"body":"out of order"},"match":{"sku":"B"},"ttl_s":60}`)
	s.want(s.checkout("k", "tok_approve"), 201, "")
	body := strings.Replace(fmt.Sprintf(basket, "tok_approve"), `"A"`, `"B"`, 1)
	resp, err := http.Post(s.url+orders, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 503 || string(raw) != "out of order" ||
		!strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("got %d %s, %v", resp.StatusCode, raw, err)
	}
}

func TestABodyThatAFaultLookedAtIsHeldToItsLimits(t *testing.T) {
	s := newShop(t)
	s.set("c", `{"type":"hang","match":{"customer":"nobody"},"ttl_s":60}`)
	s.want(s.send("POST", orders, "{", "Idempotency-Key", "k"), 400, "malformed")
	s.want(s.send("POST", orders, `{"a":"`+strings.Repeat("x", 2<<20)+`"}`, "Idempotency-Key", "k"), 413, "body-too-large")
	s.want(s.checkout("k", "tok_approve"), 201, "")
}

func TestADrippingAnswerIsWhole(t *testing.T) {
	s := newShop(t)
	made := s.checkout("k", "tok_approve")
	whole := s.send("GET", orders+"/"+made.body.ID, "")
	s.set("d", `{"type":"drip","params":{"bytes_per_s":5000},"ttl_s":60}`)
	dripped := s.send("GET", orders+"/"+made.body.ID, "")
	if dripped.raw != whole.raw || dripped.status != http.StatusOK {
		t.Errorf("got %d %s", dripped.status, dripped.raw)
	}
}

func TestAHeldRequestGoesOnWhenItsFaultIsRevoked(t *testing.T) {
	s := newShop(t)
	s.set("h", `{"type":"hang","ttl_s":900}`)
	answered := make(chan answer)
	go func() { answered <- s.checkout("k", "tok_approve") }()
	if a := s.send("DELETE", "/faults/h", "", adminToken...); a.status != 204 {
		t.Errorf("got %d", a.status)
	}
	s.want(<-answered, 201, "")
}

func TestNothingIsBegunForACallerThatIsGone(t *testing.T) {
	s := newShop(t)
	s.set("h", `{"type":"hang","ttl_s":900}`)
	s.want(s.send("POST", orders, fmt.Sprintf(basket, "tok_approve"), "Idempotency-Key", "k",
		"X-Envoy-Expected-Rq-Timeout-Ms", "50"), 503, "unavailable")
	s.want(s.send("DELETE", "/faults/h", "", adminToken...), 204, "")
	if s.unfinished() || s.peers.Payments("captured") != 0 {
		t.Error("the checkout was begun")
	}
}

func TestWrongFaultsNameTheField(t *testing.T) {
	s := newShop(t)
	for field, fault := range map[string]string{
		"type":                 `{"type":"wrong-data","params":{},"ttl_s":60}`,
		"match.category":       `{"type":"hang","match":{"category":"toys"},"ttl_s":60}`,
		"match":                `{"type":"cpu","params":{"share":1},"match":{"method":"GET"},"ttl_s":60}`,
		"params.delay_ms":      `{"type":"error","params":{"rate":1,"delay_ms":1},"ttl_s":60}`,
		"params.after_s":       `{"type":"crash-loop","ttl_s":60}`,
		"params.connections":   `{"type":"pool","params":{},"ttl_s":60}`,
		"params.cap_mb":        `{"type":"memory","params":{"mb_per_s":1,"cap_mb":1000},"ttl_s":60}`,
		"match.percentage":     `{"type":"hang","match":{"percentage":0},"ttl_s":60}`,
		"params.distribution":  `{"type":"latency","params":{"distribution":"even"},"ttl_s":60}`,
		"params.no_such_thing": `{"type":"hang","params":{"no_such_thing":1},"ttl_s":60}`,
	} {
		a := s.send("PUT", "/faults/f", fault, adminToken...)
		s.want(a, 422, "validation")
		if len(a.body.Errors) == 0 || a.body.Errors[0].Loc != "body."+field {
			t.Errorf("%s: got %s", field, a.raw)
		}
	}
}

func TestAFaultOfTheWholeProcessHasAnEnd(t *testing.T) {
	s := newShop(t)
	s.set("p", `{"type":"pool","params":{"all":true},"ttl_s":900}`)
	ready := func() bool {
		resp, err := http.Get(s.url + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	s.eventually("no connection is left", func() bool { return !ready() })
	s.want(s.send("DELETE", "/faults/p", "", adminToken...), 204, "")
	s.eventually("it is ready again", ready)
	s.want(s.checkout("k", "tok_approve"), 201, "")
}

func TestACrashTakesTheProcessUntilItsEntryIsGone(t *testing.T) {
	t.Parallel()
	peers, dir := peertest.New(t, map[string]int64{"A": 100}), t.TempDir()
	first := launch(t, peers, dir, "ADMIN_TOKEN=admin-token")
	first.set("c", `{"type":"crash","match":{"method":"POST","route":"/api/v1/orders"},"ttl_s":900}`)
	crash := func(p *process) {
		t.Helper()
		body := strings.NewReader(fmt.Sprintf(basket, "tok_approve"))
		if resp, err := http.Post(p.url+orders, "application/json", body); err == nil {
			resp.Body.Close()
			t.Fatalf("answered with %d", resp.StatusCode)
		}
		<-p.exited
		if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Errorf("it ended with %v", p.cmd.ProcessState)
		}
	}
	crash(first)
	// The lease outlives the process.
	second := launch(t, peers, dir, "ADMIN_TOKEN=admin-token")
	crash(second)
	third := launch(t, peers, dir, "ADMIN_TOKEN=admin-token")
	if err := os.Remove(filepath.Join(dir, "faults-order-service.json")); err != nil {
		t.Fatal(err)
	}
	third.eventually("orders are taken again", func() bool {
		return len(third.send("GET", "/faults", "", adminToken...).body.Items) == 0
	})
	third.want(third.checkout("k", "tok_approve"), 201, "")
}
