package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"prove/order-service/internal/peertest"
	"prove/order-service/internal/porttest"
	"prove/order-service/internal/postgrestest"
)

// testBuild is the program with crash points and mutants.
var testBuild = sync.OnceValues(func() (string, error) {
	path := binary + "-prove_test"
	out, err := goBuild("-tags", "prove_test", "-o", path, ".")
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return path, err
})

func onBothDatabases(t *testing.T, test func(t *testing.T, database string)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, "sqlite:///"+filepath.Join(t.TempDir(), "order.db"))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, postgrestest.New(t))
	})
}

// try sends a request to a process that may die of it.
func (p *process) try(method, path, body string, header ...string) {
	req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
	}
}

// One process dies at each point in turn. Those that come after it end what it left.
func TestACrashAtAnyPointLosesNothing(t *testing.T) {
	t.Parallel()
	program, err := testBuild()
	if err != nil {
		t.Fatal(err)
	}
	onBothDatabases(t, func(t *testing.T, database string) {
		points := t.TempDir()
		peers := peertest.New(t, map[string]int64{"A": 1000})
		start := func() *process {
			return launchBinary(t, program, peers, "", "DATABASE_URL="+database, "PROVE_CRASH_DIR="+points)
		}
		p := start()
		dies := func(point string, act func()) {
			t.Helper()
			file := filepath.Join(points, "order."+point)
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			act()
			p.wait()
			if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
				t.Fatalf("%s: it ended by %v\n%s", point, p.cmd.ProcessState, p.out)
			}
			if _, err := os.Stat(fmt.Sprintf("%s.fired.%d", file, p.cmd.Process.Pid)); err != nil {
				t.Error(err)
			}
			p = start()
		}
		body := fmt.Sprintf(basket, "tok_approve")
		var keys, cancelled []string
		for _, step := range []string{"create", "reserve", "save-reserved", "charge", "save-paid", "commit", "save-confirmed"} {
			for _, point := range []string{step + ".before", step + ".after"} {
				keys = append(keys, point)
				dies(point, func() { p.try("POST", orders, body, "Idempotency-Key", point) })
			}
		}
		keys = append(keys, "answer.before")
		dies("answer.before", func() { p.try("POST", orders, body, "Idempotency-Key", "answer.before") })
		for _, step := range []string{"save-other", "cancel-payment", "release"} {
			for _, point := range []string{step + ".before", step + ".after"} {
				a := p.checkout(point, "tok_approve")
				p.want(a, 201, "")
				cancelled = append(cancelled, a.body.ID)
				dies(point, func() { p.try("POST", orders+"/"+a.body.ID+"/cancel", "") })
			}
		}
		slow := p.checkout("slow", "tok_slow")
		p.want(slow, 202, "")
		dies("claim.after", func() {})
		peers.Settle("captured", "")
		p.until(slow.body.ID, "confirmed")

		for _, key := range keys {
			var a answer
			p.eventually(key+" is confirmed", func() bool {
				a = p.checkout(key, "tok_approve")
				return a.status == 201
			})
			if again := p.checkout(key, "tok_approve"); again.raw != a.raw || again.header.Get("Idempotency-Replayed") != "true" {
				t.Errorf("%s: answered %s\nand then %s", key, a.raw, again.raw)
			}
			h := p.send("GET", orders+"/"+a.body.ID, "").history()
			if h != "pending/reserve reserved/charge paid/commit confirmed/" {
				t.Errorf("%s: history is %s", key, h)
			}
		}
		for _, id := range cancelled {
			p.eventually("it is cancelled", func() bool {
				return p.send("POST", orders+"/"+id+"/cancel", "").status == 200
			})
			h := p.send("GET", orders+"/"+id, "").history()
			if h != "pending/reserve reserved/charge paid/commit confirmed/ cancelled/cancel-payment cancelled/release cancelled/" {
				t.Errorf("history is %s", h)
			}
		}
		confirmed := len(keys) + 1
		if peers.Payments("captured") != confirmed || peers.Payments("refunded") != len(cancelled) ||
			peers.Stock("A") != int64(1000-2*confirmed) {
			t.Errorf("%d of %d captured, %d of %d refunded, %d in stock", peers.Payments("captured"), confirmed,
				peers.Payments("refunded"), len(cancelled), peers.Stock("A"))
		}
		list := p.send("GET", orders+"?customer_id=c1&limit=100", "")
		if len(list.body.Items) != confirmed+len(cancelled) {
			t.Errorf("%d orders, want %d", len(list.body.Items), confirmed+len(cancelled))
		}
	})
}

// Two processes share the orders that were put off, and one ends what the other leaves behind.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	database := postgrestest.New(t)
	peers := peertest.New(t, map[string]int64{"A": 1000})
	a := launch(t, peers, "", "DATABASE_URL="+database)
	b := launch(t, peers, "", "DATABASE_URL="+database)
	var mu sync.Mutex
	asking, retried := map[string]int{}, 0
	peers.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/payments") {
			return false
		}
		key := r.Header.Get("Idempotency-Key")
		mu.Lock()
		asking[key]++
		if asking[key] > 1 {
			retried++
		}
		mu.Unlock()
		go func() {
			<-r.Context().Done() // answered
			mu.Lock()
			asking[key]--
			mu.Unlock()
		}()
		return false
	})
	const n = 40
	var wg sync.WaitGroup
	var ids [n]string
	for i := range n {
		wg.Go(func() {
			at := []*process{a, b}[i%2]
			got := at.checkout(fmt.Sprint(i), "tok_slow")
			ids[i] = got.body.ID
			if got.status != 202 {
				t.Errorf("got %d %s", got.status, got.raw)
			}
			// The other process knows the key, too.
			if again := []*process{b, a}[i%2].checkout(fmt.Sprint(i), "tok_slow"); again.body.ID != got.body.ID {
				t.Errorf("got %s\nand %s", got.raw, again.raw)
			}
		})
	}
	wg.Wait()
	a.signal(syscall.SIGKILL)
	a.wait()
	mu.Lock()
	if retried != 0 {
		t.Errorf("%d charges were asked for by two at once", retried)
	}
	mu.Unlock()
	peers.Settle("captured", "")
	for _, id := range ids {
		b.until(id, "confirmed")
	}
	if peers.Payments("captured") != n || peers.Stock("A") != 1000-2*n {
		t.Errorf("%d captured, %d in stock", peers.Payments("captured"), peers.Stock("A"))
	}
}

// A process that is told to end leaves its orders to the next one at once.
func TestAGracefulEndHandsOver(t *testing.T) {
	t.Parallel()
	peers := peertest.New(t, map[string]int64{"A": 100})
	dir := t.TempDir()
	first := launch(t, peers, dir)
	a := first.checkout("k", "tok_slow")
	first.want(a, 202, "")
	first.signal(syscall.SIGTERM)
	if code := first.wait(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, first.out)
	}
	peers.Settle("captured", "")
	launch(t, peers, dir).until(a.body.ID, "confirmed")
}

// A slow process that was taken for dead finds its order in other hands, and tells its customer
// what came of it there.
func TestAPausedProcessLosesItsOrder(t *testing.T) {
	t.Parallel()
	database := postgrestest.New(t)
	peers := peertest.New(t, map[string]int64{"A": 100})
	a := launch(t, peers, "", "DATABASE_URL="+database, "CHECKOUT_TIMEOUT_S=60")
	b := launch(t, peers, "", "DATABASE_URL="+database)
	reached, release := hold(peers)
	defer release()
	first := make(chan answer, 1)
	go func() { first <- a.checkout("k", "tok_approve") }()
	<-reached
	a.signal(syscall.SIGSTOP)
	release()
	var got answer
	b.eventually("the other ends it", func() bool {
		got = b.checkout("k", "tok_approve")
		return got.status == 201
	})
	a.signal(syscall.SIGCONT)
	if late := <-first; late.status != 201 || late.raw != got.raw {
		t.Errorf("the first was answered %d %s\nthe second %s", late.status, late.raw, got.raw)
	}
	if peers.Payments("captured") != 1 || peers.Stock("A") != 98 {
		t.Errorf("%d captured, %d in stock", peers.Payments("captured"), peers.Stock("A"))
	}
}

func TestAReleaseHasNoTestHooks(t *testing.T) {
	t.Parallel()
	hooks := regexp.MustCompile(`internal/(crash|mutant)|PROVE_CRASH_DIR|PROVE_MUTANT`)
	deps, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := exec.Command("go", "tool", "nm", binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string][]byte{"a dependency": deps, "a symbol": symbols, "a string": program} {
		if found := hooks.Find(text); found != nil {
			t.Errorf("a release build has %s of the tests: %s", what, found)
		}
	}
	// The proof looks where it should.
	path, err := testBuild()
	if err != nil {
		t.Fatal(err)
	}
	if symbols, err = exec.Command("go", "tool", "nm", path).Output(); err != nil || !hooks.Match(symbols) {
		t.Errorf("a test build has no hooks either, %v", err)
	}
	out, err := (&exec.Cmd{Path: path, Env: []string{"PROVE_MUTANT=no-such", "PORT=" + porttest.Free(),
		"DATABASE_URL=sqlite:///" + filepath.Join(t.TempDir(), "o.db"), "OTEL_SDK_DISABLED=true"}}).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "PROVE_MUTANT: Input should be one of ack-before-commit, ") ||
		strings.Count(string(out), "\n") != 1 {
		t.Errorf("an unknown mutant: %v, %s", err, out)
	}
}
