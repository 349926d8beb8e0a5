package ledger

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func open(t *testing.T) *Ledger {
	t.Helper()
	book, err := Open(t.Context(), filepath.Join(t.TempDir(), "odd name?%.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = book.Close() })
	return book
}

func approved(key string, amount int64) Entry {
	return Entry{Key: key, Status: StatusApproved, AmountMinor: amount, Currency: "GBP", MethodToken: "tok_approve"}
}

func TestFiftyConcurrentDuplicatesBookOneCharge(t *testing.T) {
	book := open(t)
	var group sync.WaitGroup
	ids := make(chan string, 50)
	firsts := make(chan bool, 50)
	for range 50 {
		group.Go(func() {
			entry, first, err := book.Charge(context.Background(), approved("k", 100))
			if err != nil {
				t.Error(err)
			}
			ids <- entry.ID
			firsts <- first
		})
	}
	group.Wait()
	close(ids)
	close(firsts)
	distinct, made := map[string]bool{}, 0
	for id := range ids {
		distinct[id] = true
	}
	for first := range firsts {
		if first {
			made++
		}
	}
	entries, err := book.List(t.Context(), 0, 100)
	if err != nil || len(entries) != 1 || len(distinct) != 1 || made != 1 {
		t.Fatalf("%d entries, ids %v, %d firsts, err %v", len(entries), distinct, made, err)
	}
}

func TestAKeyStandsForOneCharge(t *testing.T) {
	book := open(t)
	if _, _, err := book.Charge(t.Context(), approved("k", 100)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := book.Charge(t.Context(), approved("k", 101)); !errors.Is(err, ErrKeyReused) {
		t.Fatalf("another amount under the key: %v", err)
	}
	if _, err := book.ChargeByKey(t.Context(), "other"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("unknown key: %v", err)
	}
}

func TestRefunds(t *testing.T) {
	book := open(t)
	declined := approved("declined", 100)
	declined.Status = StatusDeclined
	for _, charge := range []Entry{approved("charge", 100), declined} {
		if _, _, err := book.Charge(t.Context(), charge); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		key, charge string
		amount      int64
		want        error
	}{
		{"r1", "charge", 60, nil},
		{"r1", "charge", 60, nil}, // again: the same refund
		{"r1", "charge", 40, ErrKeyReused},
		{"r2", "charge", 41, ErrNotRefundable},
		{"r3", "charge", 40, nil},
		{"r4", "charge", 1, ErrNotRefundable},
		{"r5", "declined", 100, ErrNotRefundable},
		{"r6", "nothing", 1, ErrNotFound},
	}
	for _, step := range steps {
		if _, err := book.Refund(t.Context(), step.key, step.charge, step.amount); !errors.Is(err, step.want) {
			t.Errorf("%+v: got %v", step, err)
		}
	}
	entries, err := book.List(t.Context(), 2, 10)
	if err != nil || len(entries) != 2 {
		t.Fatalf("refunds %v, err %v", entries, err)
	}
}

func TestARefundIsNeverPaidTwiceUnderLoad(t *testing.T) {
	book := open(t)
	if _, _, err := book.Charge(t.Context(), approved("charge", 100)); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() { // different keys compete for the same money
			_, err := book.Refund(context.Background(), string(rune('a'+i)), "charge", 100)
			if err != nil && !errors.Is(err, ErrNotRefundable) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	entries, err := book.List(t.Context(), 1, 100)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d refunds, err %v", len(entries), err)
	}
}

func TestOpenExplainsWhatIsWrong(t *testing.T) {
	directory := t.TempDir()
	text := filepath.Join(directory, "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a database. ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(directory, "torn.db")
	book, err := Open(t.Context(), torn)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Split(strings.Repeat("k", 500), "") {
		_, _, _ = book.Charge(t.Context(), approved(key, 1))
	}
	if err := book.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(torn)
	if err != nil {
		t.Fatal(err)
	}
	copy(content[4096:], strings.Repeat("\xff", 8192))
	if err := os.WriteFile(torn, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		text: "move it away or restore a backup",
		torn: "move it away or restore a backup",
		filepath.Join(directory, "absent", "x.db"): "make its directory exist",
	} {
		book, err := Open(t.Context(), path)
		if err == nil {
			_ = book.Close()
			t.Errorf("%s opened", path)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
