package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	spanpb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"prove/order-service/internal/peertest"
	"prove/order-service/internal/porttest"
	"prove/order-service/internal/postgrestest"
)

var binary string // the real program, built once

// goBuild compiles as a release is, so that Go's cache serves both.
func goBuild(arguments ...string) ([]byte, error) {
	build := exec.Command("go", append([]string{"build", "-trimpath"}, arguments...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	return build.CombinedOutput()
}

func TestMain(m *testing.M) {
	otel.SetTextMapPropagator(propagation.TraceContext{}) // as telemetry.Start does
	dir, err := os.MkdirTemp("", "order-service-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "order-service")
	if out, err := goBuild("-o", binary, "."); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %s\n", err, out)
		os.Exit(1)
	}
	// Whoever the program runs as must reach it.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	postgrestest.Stop()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// process is a running order-service.
type process struct {
	*shop
	cmd    *exec.Cmd
	out    *output
	exited chan struct{}
}

// output collects lines while the process writes them.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func command(env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "OTEL_SDK_DISABLED=true"}, env...)
	return cmd
}

func launch(t *testing.T, peers *peertest.Peers, dir string, env ...string) *process {
	return launchBinary(t, binary, peers, dir, env...)
}

func launchBinary(t *testing.T, program string, peers *peertest.Peers, dir string, env ...string) *process {
	port := porttest.Free()
	p := &process{
		shop:   &shop{T: t, peers: peers, url: "http://127.0.0.1:" + port},
		out:    &output{},
		exited: make(chan struct{}),
	}
	p.cmd = command(append([]string{"PORT=" + port, "DATABASE_URL=sqlite:///" + filepath.Join(dir, "order.db"),
		"PRODUCT_URL=" + peers.URL.String(), "PAYMENT_URL=" + peers.URL.String()}, env...))
	p.cmd.Path = program
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the exit code is looked at by who cares
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("process %d said:\n%s", p.cmd.Process.Pid, p.out)
		}
	})
	p.eventually("it is ready", func() bool {
		resp, err := http.Get(p.url + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
	return p
}

func (p *process) signal(s syscall.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.Fatal(err)
	}
}

func (p *process) wait() int {
	p.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.Fatalf("it does not end:\n%s", p.out)
	}
	return p.cmd.ProcessState.ExitCode()
}

// hold makes charges hang until release is called; reached is closed by the first.
func hold(peers *peertest.Peers) (reached <-chan struct{}, release func()) {
	r, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	peers.Intercept(func(_ http.ResponseWriter, r2 *http.Request) bool {
		if strings.HasSuffix(r2.URL.Path, "/payments") {
			once.Do(func() { close(r) })
			<-free
		}
		return false
	})
	return r, sync.OnceFunc(func() { close(free) })
}

func TestGracefulShutdown(t *testing.T) {
	t.Parallel()
	peers := peertest.New(t, map[string]int64{"A": 100})
	// The delay is the time there is to see it unready and still answering; the checkout outlasts it.
	p := launch(t, peers, t.TempDir(), "SHUTDOWN_DELAY_S=8", "SHUTDOWN_GRACE_S=120", "CHECKOUT_TIMEOUT_S=60", "PAYMENT_WAIT_S=30")
	reached, release := hold(peers)
	defer release()
	inFlight := make(chan answer, 1)
	go func() { inFlight <- p.checkout("k", "tok_approve") }()
	<-reached
	p.signal(syscall.SIGTERM)
	p.eventually("it is unready but still answers", func() bool {
		resp, err := http.Get(p.url + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 503
	})
	p.eventually("it accepts no more", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	release()
	if a := <-inFlight; a.status != 201 {
		t.Errorf("the request in flight got %d %s", a.status, a.raw)
	}
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.out)
	}
}

func TestASecondSignalEndsItAtOnce(t *testing.T) {
	t.Parallel()
	peers := peertest.New(t, map[string]int64{"A": 100})
	p := launch(t, peers, t.TempDir(), "SHUTDOWN_GRACE_S=3600", "CHECKOUT_TIMEOUT_S=60", "PAYMENT_WAIT_S=30")
	reached, release := hold(peers)
	defer release()
	go func() {
		if resp, err := http.Post(p.url+"/nope", "", nil); err == nil {
			resp.Body.Close()
		}
		req, _ := http.NewRequest("POST", p.url+orders, strings.NewReader(fmt.Sprintf(basket, "tok_approve")))
		req.Header.Set("Idempotency-Key", "k")
		req.Header.Set("Content-Type", "application/json")
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			t.Errorf("the request was answered: %d", resp.StatusCode)
		}
	}()
	<-reached
	p.signal(syscall.SIGTERM)
	p.eventually("it has seen the first", func() bool { return strings.Contains(p.out.String(), "shutting down") })
	p.signal(syscall.SIGINT)
	if code := p.wait(); code == 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestAnOrderSurvivesKill9(t *testing.T) {
	t.Parallel()
	peers := peertest.New(t, map[string]int64{"A": 100})
	dir := t.TempDir()
	first := launch(t, peers, dir)
	a := first.checkout("k", "tok_slow")
	first.want(a, 202, "")
	first.signal(syscall.SIGKILL)
	first.wait()
	peers.Settle("captured", "")
	second := launch(t, peers, dir)
	second.until(a.body.ID, "confirmed")
	again := second.checkout("k", "tok_slow")
	if again.status != 201 || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("got %d %s", again.status, again.raw)
	}
	if peers.Payments("captured") != 1 || peers.Stock("A") != 98 {
		t.Errorf("%d payments, %d left in stock", peers.Payments("captured"), peers.Stock("A"))
	}
}

func TestStartFailuresAreExplained(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	_, busyPort, _ := net.SplitHostPort(busy.Addr().String())
	dir := t.TempDir()
	corrupt := filepath.Join(dir, "corrupt.db")
	if err := os.WriteFile(corrupt, bytes.Repeat([]byte("not a database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	database := func(name string) string { return "DATABASE_URL=sqlite:///" + filepath.Join(dir, name) }
	port := "PORT=" + porttest.Free()
	for name, c := range map[string]struct {
		env  []string
		args []string
		want string
	}{
		"busy port": {[]string{"PORT=" + busyPort, database("a.db")}, nil,
			"order-service: 127.0.0.1:" + busyPort + " is already in use; set PORT or stop the other process (ss -ltnp shows it)"},
		"bad port":    {[]string{"PORT=99999"}, nil, "order-service: PORT: Input should be less than or equal to 65535 (got '99999')"},
		"corrupt":     {[]string{port, database("corrupt.db")}, nil, "order-service: " + corrupt + " is not a usable database"},
		"no dir":      {[]string{port, database("no/such/dir.db")}, []string{"migrate"}, "does not exist; create it or set DATABASE_URL"},
		"unmigrated":  {[]string{port, database("b.db"), "MIGRATE_ON_START=false"}, nil, "run `order-service migrate`"},
		"bad command": {nil, []string{"sing"}, `order-service: unknown command "sing"; usage: order-service [serve|migrate|openapi]`},
		"too many":    {nil, []string{"serve", "now"}, "usage:"},
	} {
		var out bytes.Buffer
		cmd := command(c.env, c.args...)
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %v, %s\nwant exit code 2 and %s", name, err, out.String(), c.want)
		}
		if strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%s: not one line: %s", name, out.String())
		}
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "order-readonly-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := command([]string{"DATABASE_URL=sqlite:///" + filepath.Join(dir, "order.db")}, "migrate")
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, "/"
	if os.Getuid() == 0 { // root may write everywhere
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Skip("skipped: there is no user nobody to run as")
		}
		uid, _ := strconv.ParseUint(nobody.Uid, 10, 32)
		gid, _ := strconv.ParseUint(nobody.Gid, 10, 32)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	err = cmd.Run()
	if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(out.String(), "writable or set DATABASE_URL") {
		t.Errorf("%v, %s", err, out.String())
	}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := []string{"DATABASE_URL=sqlite:///" + filepath.Join(dir, "order.db")}
	for range 2 {
		if out, err := command(env, "migrate").CombinedOutput(); err != nil || len(out) != 0 {
			t.Fatalf("%v, %s", err, out)
		}
	}
	out, err := command(nil, "openapi").Output()
	if err != nil || !json.Valid(out) || !bytes.Contains(out, []byte(`"/api/v1/orders/{id}/cancel"`)) {
		t.Errorf("%v, %.200s", err, out)
	}
}

// collector plays the OpenTelemetry Collector and keeps what it is sent.
type collector struct {
	mu      sync.Mutex
	spans   []*spanpb.Span
	logs    []string
	metrics map[string]bool
	exempl  map[string]int
	sizes   []float64 // bucket boundaries of http.server.request.duration
	service map[string]string
}

func newCollector(t *testing.T) (*collector, string) {
	c := &collector{metrics: map[string]bool{}, exempl: map[string]int{}, service: map[string]string{}}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		switch r.URL.Path {
		case "/v1/traces":
			var m tracepb.ExportTraceServiceRequest
			if err := proto.Unmarshal(raw, &m); err != nil {
				t.Error(err)
			}
			for _, rs := range m.ResourceSpans {
				for _, a := range rs.Resource.Attributes {
					c.service[a.Key] = a.Value.GetStringValue()
				}
				for _, ss := range rs.ScopeSpans {
					c.spans = append(c.spans, ss.Spans...)
				}
			}
		case "/v1/logs":
			var m logspb.ExportLogsServiceRequest
			if err := proto.Unmarshal(raw, &m); err != nil {
				t.Error(err)
			}
			for _, rl := range m.ResourceLogs {
				for _, sl := range rl.ScopeLogs {
					for _, l := range sl.LogRecords {
						c.logs = append(c.logs, fmt.Sprintf("%x %s %s", l.TraceId, l.Body.GetStringValue(), attribute(l.Attributes, "request_id")))
					}
				}
			}
		case "/v1/metrics":
			var m metricspb.ExportMetricsServiceRequest
			if err := proto.Unmarshal(raw, &m); err != nil {
				t.Error(err)
			}
			for _, rm := range m.ResourceMetrics {
				for _, sm := range rm.ScopeMetrics {
					for _, metric := range sm.Metrics {
						c.metrics[metric.Name] = true
						for _, p := range metric.GetHistogram().GetDataPoints() {
							c.exempl[metric.Name] += len(p.Exemplars)
							if metric.Name == "http.server.request.duration" {
								c.sizes = p.ExplicitBounds
								c.metrics["route "+attribute(p.Attributes, "http.route")] = true
							}
						}
					}
				}
			}
		}
	}))
	t.Cleanup(server.Close)
	return c, server.URL
}

func attribute(attrs []*commonpb.KeyValue, key string) string {
	for _, a := range attrs {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

func TestTelemetryOfOneCheckout(t *testing.T) {
	t.Parallel()
	c, endpoint := newCollector(t)
	p := launch(t, peertest.New(t, map[string]int64{"A": 100}), t.TempDir(), "OTEL_SDK_DISABLED=false",
		"OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_METRIC_EXPORT_INTERVAL=200",
		"OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test")
	a := p.send("POST", orders, fmt.Sprintf(basket, "tok_approve"), "Idempotency-Key", "k",
		"traceparent", traceparent, "X-Request-Id", "req-7")
	p.want(a, 201, "")
	p.want(p.send("GET", orders+"/"+a.body.ID, ""), 200, "")
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, p.out)
	}
	c.mu.Lock()
	defer c.mu.Unlock()

	byID, names := map[string]*spanpb.Span{}, map[string]*spanpb.Span{}
	for _, s := range c.spans {
		if strings.Contains(s.Name, "livez") || strings.Contains(s.Name, "readyz") {
			t.Errorf("a health request made the span %s", s.Name)
		}
		if fmt.Sprintf("%x", s.TraceId) == "0af7651916cd43dd8448eb211c80319c" {
			byID[string(s.SpanId)], names[s.Name] = s, s
		}
	}
	parents := map[string]string{
		"POST /api/v1/orders":                   "",
		"checkout":                              "POST /api/v1/orders",
		"reserve stock":                         "checkout",
		"charge payment":                        "checkout",
		"commit stock":                          "checkout",
		"POST /api/v1/reservations":             "reserve stock",
		"POST /api/v1/payments":                 "charge payment",
		"POST /api/v1/reservations/{id}/commit": "commit stock",
	}
	for name, parent := range parents {
		s := names[name]
		if s == nil {
			t.Errorf("no span %q among %d", name, len(names))
			continue
		}
		if parent != "" && byID[string(s.ParentSpanId)].GetName() != parent {
			t.Errorf("the parent of %q is %q", name, byID[string(s.ParentSpanId)].GetName())
		}
	}
	if s := names["POST /api/v1/orders"]; attribute(s.GetAttributes(), "prove.request_id") != "req-7" ||
		attribute(s.GetAttributes(), "http.route") != orders {
		t.Errorf("the server span has %v", s.GetAttributes())
	}
	if s := names["checkout"]; attribute(s.GetAttributes(), "prove.order.id") != a.body.ID {
		t.Errorf("the checkout span has %v", s.GetAttributes())
	}
	if c.service["service.name"] != "order-service" || c.service["service.namespace"] != "prove" ||
		c.service["service.instance.id"] == "" || c.service["deployment.environment.name"] != "test" {
		t.Errorf("the resource is %v", c.service)
	}
	for _, name := range []string{"http.server.request.duration", "http.client.request.duration", "prove.orders",
		"prove.order.value", "prove.orders.unfinished", "prove.orders.unfinished.oldest",
		"prove.peer.breaker.state", "go.memory.used",
		"route /api/v1/orders", "route /api/v1/orders/{id}"} {
		if !c.metrics[name] {
			t.Errorf("no metric %s", name)
		}
	}
	if c.metrics["route /readyz"] {
		t.Error("health requests are measured")
	}
	if c.exempl["http.server.request.duration"] == 0 {
		t.Error("no exemplars")
	}
	if !strings.Contains(fmt.Sprint(c.sizes), " 0.5 ") {
		t.Errorf("no bucket boundary at 0.5: %v", c.sizes)
	}
	for _, event := range []string{"order confirmed", "request"} {
		want := "0af7651916cd43dd8448eb211c80319c " + event + " req-7"
		if !strings.Contains(strings.Join(c.logs, "\n")+"\n", want+"\n") {
			t.Errorf("no log %q in %q", want, c.logs)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(p.out.String()), "\n") {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for _, field := range []string{"ts", "level", "event", "logger", "service"} {
			if l[field] == nil {
				t.Errorf("no %s in %s", field, line)
			}
		}
		if l["event"] == "order confirmed" && (l["trace_id"] != "0af7651916cd43dd8448eb211c80319c" ||
			l["request_id"] != "req-7" || l["span_id"] == nil) {
			t.Errorf("the line is not tied to its request: %s", line)
		}
	}
}

func TestWithoutACollectorTheShopGoesOn(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	p := launch(t, peertest.New(t, map[string]int64{"A": 1000}), t.TempDir(), "OTEL_SDK_DISABLED=false",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:"+porttest.Free(), "OTEL_METRIC_EXPORT_INTERVAL=100",
		"OTEL_BSP_SCHEDULE_DELAY=50", "OTEL_BLRP_SCHEDULE_DELAY=50")
	for i := range 50 {
		p.want(p.checkout(fmt.Sprint(i), "tok_approve"), 201, "")
	}
	p.eventually("the loss is reported", func() bool { return strings.Contains(p.out.String(), "telemetry is not delivered") })
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.out)
	}
	if n := strings.Count(p.out.String(), "telemetry is not delivered"); n < 1 || n > 1+int(time.Since(begun).Minutes()) {
		t.Errorf("reported %d times", n)
	}
}
