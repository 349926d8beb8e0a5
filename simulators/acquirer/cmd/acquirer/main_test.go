package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is the program too: with this variable set it runs main instead of the tests.
const asProgram = "ACQUIRER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func program(t *testing.T, environment ...string) *exec.Cmd {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Dir = t.TempDir()
	command.Env = append(append(os.Environ(), asProgram+"=1"), environment...)
	t.Cleanup(func() {
		if command.Process != nil && command.ProcessState == nil {
			_ = command.Process.Kill()
			_ = command.Wait()
		}
	})
	return command
}

// freePort is one below the ports that kernels give to outgoing connections, which could get it first.
func freePort() int {
	for {
		port := 10_000 + rand.IntN(5_000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
}

func start(t *testing.T, port int, environment ...string) *exec.Cmd {
	t.Helper()
	command := program(t, append(environment, fmt.Sprintf("PORT=%d", port))...)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", port))
		if err == nil {
			_ = response.Body.Close()
			return command
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("did not start")
	return nil
}

func charge(port int, key, token string) (string, error) {
	body := fmt.Sprintf(`{"key":%q,"amount_minor":7,"currency":"GBP","method_token":%q}`, key, token)
	response, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/v1/charges", port), "application/json",
		strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	return string(content), err
}

func TestAKilledProcessForgetsNothing(t *testing.T) {
	port := freePort()
	database := "DATABASE_URL=sqlite:///" + filepath.Join(t.TempDir(), "a.db")
	first := start(t, port, database)
	before, err := charge(port, "k", "tok_approve")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := charge(port, "u", "tok_unknown"); err == nil {
		t.Fatal("the unknown outcome was answered")
	}
	_ = first.Process.Kill()
	_ = first.Wait()

	start(t, port, database)
	after, err := charge(port, "k", "tok_approve")
	if err != nil || after != before {
		t.Fatalf("before %s, after %s, err %v", before, after, err)
	}
	if answer, err := charge(port, "u", "tok_unknown"); err != nil || !strings.Contains(answer, "approved") {
		t.Fatalf("the outcome is not told after a restart: %s %v", answer, err)
	}
}

func TestSigtermLetsRequestsFinishAndExitsZero(t *testing.T) {
	port := freePort()
	command := start(t, port, "SLOW_MS=1000")
	answered := make(chan error, 1)
	go func() {
		answer, err := charge(port, "k", "tok_slow")
		if err == nil && !strings.Contains(answer, "approved") {
			err = fmt.Errorf("answer %s", answer)
		}
		answered <- err
	}()
	waitBooked(t, port, "k")
	_ = command.Process.Signal(syscall.SIGTERM)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := command.Wait(); err != nil {
		t.Error(err)
	}
}

func TestASecondSignalExitsAtOnce(t *testing.T) {
	port := freePort()
	command := start(t, port, "SLOW_MS=600000", "SHUTDOWN_GRACE_S=3600")
	go func() { _, _ = charge(port, "k", "tok_slow") }()
	waitBooked(t, port, "k")
	exited := make(chan error, 1)
	go func() { exited <- command.Wait() }()
	for {
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
			if command.ProcessState.Success() {
				t.Error("exited with 0 though a request was cut off")
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func waitBooked(t *testing.T, port int, key string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/v1/charges/%s", port, key))
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
	}
	t.Fatal("the charge was not booked")
}

func TestStartErrorsAreOneSentence(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	corrupt := filepath.Join(t.TempDir(), "corrupt.db")
	if err := os.WriteFile(corrupt, bytes.Repeat([]byte("x"), 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprintf("PORT=%d", taken.Addr().(*net.TCPAddr).Port)
	for environment, want := range map[string]string{
		port:                                "is already in use; set PORT",
		"PORT=99999":                        "PORT: must be a whole number from 1 to 65535 (got '99999')",
		"SLOW_MS=soon":                      "SLOW_MS: must be a whole number",
		"LOG_LEVEL=loud":                    "LOG_LEVEL: must be",
		"DATABASE_URL=postgresql://u:pw@h/": "DATABASE_URL: must be sqlite:///<file>",
		"DATABASE_URL=sqlite:///" + corrupt: corrupt + " is not a SQLite database or is damaged; move it away",
		"DATABASE_URL=sqlite:////no/such/d": "cannot write /no/such/d",
		"HOST=203.0.113.1":                  "cannot listen on 203.0.113.1:8004; set HOST",
	} {
		var stderr bytes.Buffer
		command := program(t, environment)
		command.Stderr = &stderr
		_ = command.Run()
		text := stderr.String()
		if command.ProcessState.ExitCode() != 2 || !strings.HasPrefix(text, "acquirer: ") ||
			!strings.Contains(text, want) || strings.Count(text, "\n") != 1 || strings.Contains(text, "pw@") {
			t.Errorf("%s: exit %d, %q", environment, command.ProcessState.ExitCode(), text)
		}
	}
}
