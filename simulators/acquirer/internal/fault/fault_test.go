package fault

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func put(t *testing.T, l *Leases, name, kind, params string, ttl int) {
	t.Helper()
	var given map[string]json.RawMessage
	if err := json.Unmarshal([]byte(params), &given); err != nil {
		t.Fatal(err)
	}
	lease, err := New(name, kind, given, ttl)
	if err == nil {
		err = l.Put(lease)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestLeasesLiveInAFileUntilTheirEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "faults.json")
	var log bytes.Buffer
	open := func() *Leases { return Open(path, slog.New(slog.NewTextHandler(&log, nil))) }
	l := open()
	put(t, l, "a", "declining", `{"rate":0.5}`, 900)
	put(t, l, "b", "slow", `{"delay_ms":1500}`, 900)
	put(t, l, "c", "failing", `{}`, 5)
	if d := open().Next(); d.Delay != 1500*time.Millisecond || !d.Fail {
		t.Errorf("after a restart: %+v", d)
	}
	until(t, "c ends", func() bool { return len(l.List()) == 2 && !l.Next().Fail })
	if err := l.Delete("b"); err != nil {
		t.Fatal(err)
	}
	if err := l.Delete("b"); err != nil {
		t.Fatal(err)
	}
	if d := l.Next(); d.Delay != 0 {
		t.Errorf("%+v", d)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	until(t, "removing the file revokes them", func() bool { return len(l.List()) == 0 })
	if err := os.WriteFile(path, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "the file is told not to be usable", func() bool {
		l.List()
		return strings.Contains(log.String(), "not usable")
	})
}

func TestALeaseGoesOnCountingWhenAnotherIsSet(t *testing.T) {
	l := Open(filepath.Join(t.TempDir(), "faults.json"), slog.New(slog.DiscardHandler))
	put(t, l, "a", "declining", `{"rate":0.5}`, 900)
	first := l.Next().Decline
	put(t, l, "b", "answer-twice", `{}`, 900)
	if second := l.Next(); first || !second.Decline || !second.Twice {
		t.Errorf("%v, %+v", first, second)
	}
}

func TestHalfOfAPeriodIsDown(t *testing.T) {
	period := 10.0
	lease := &Lease{CreatedAt: time.Now(), Params: Params{PeriodS: &period}}
	for after, want := range map[time.Duration]bool{0: false, 4 * time.Second: false, 6 * time.Second: true, 11 * time.Second: false, 19 * time.Second: true} {
		if got := lease.down(lease.CreatedAt.Add(after)); got != want {
			t.Errorf("after %s: %v", after, got)
		}
	}
}
