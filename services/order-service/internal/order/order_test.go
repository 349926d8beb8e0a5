package order

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestTransitions(t *testing.T) {
	all := []Status{Pending, Reserved, Paid, Confirmed, Rejected, Cancelled}
	allowed := map[Status]map[Status]bool{
		Pending:   {Reserved: true, Rejected: true, Cancelled: true},
		Reserved:  {Paid: true, Rejected: true, Cancelled: true},
		Paid:      {Confirmed: true, Rejected: true, Cancelled: true},
		Confirmed: {Cancelled: true},
	}
	for _, from := range all {
		for _, to := range all {
			o := &Order{Status: from, Attempts: 3}
			now := time.Now()
			err := o.move(to, StepRelease, now)
			if allowed[from][to] {
				if err != nil || o.Status != to || o.Step != StepRelease || o.Attempts != 0 ||
					!o.StepSince.Equal(now) || !o.UpdatedAt.Equal(now) {
					t.Errorf("%s to %s: %v, %+v", from, to, err, o)
				}
			} else if !errors.Is(err, ErrTransition) || o.Status != from || o.Attempts != 3 {
				t.Errorf("%s to %s: got %v and %+v, want ErrTransition and no change", from, to, err, o)
			}
		}
	}
}

func TestPathOfAConfirmedOrder(t *testing.T) {
	now := time.Now()
	o, err := newOrder(Request{CustomerID: "c", Key: "k", Lines: []Line{{SKU: "a", Quantity: 2}}}, now)
	if err != nil {
		t.Fatal(err)
	}
	if o.Status != Pending || o.Step != StepReserve {
		t.Fatalf("a new order is %s/%s", o.Status, o.Step)
	}
	steps := []struct {
		do     func() error
		status Status
		step   Step
	}{
		{func() error { return o.reserved(Reservation{Currency: "GBP", TotalMinor: 500}, now) }, Reserved, StepCharge},
		{func() error { return o.charged("pay-1", now) }, Paid, StepCommit},
		{func() error { return o.committed(now) }, Confirmed, StepNone},
		{func() error { return o.cancel(now) }, Cancelled, StepCancelPayment},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatal(err)
		}
		if o.Status != s.status || o.Step != s.step {
			t.Fatalf("got %s/%s, want %s/%s", o.Status, o.Step, s.status, s.step)
		}
	}
	if o.TotalMinor != 500 || o.Currency != "GBP" || o.PaymentID != "pay-1" {
		t.Errorf("facts were lost: %+v", o)
	}
}

func TestSettled(t *testing.T) {
	for status, want := range map[Status]bool{Pending: false, Reserved: false, Paid: false,
		Confirmed: true, Rejected: true, Cancelled: true} {
		if got := (&Order{Status: status}).Settled(); got != want {
			t.Errorf("%s: got %v", status, got)
		}
	}
}

func TestBackoffGrowsWithinItsBounds(t *testing.T) {
	for attempts := 1; attempts < 100; attempts++ {
		for range 20 {
			d := backoff(attempts)
			if d < retryMin/2 || d > retryMax {
				t.Fatalf("attempt %d waits %s", attempts, d)
			}
			if attempts > 4 && d < retryMax/2 {
				t.Fatalf("attempt %d waits only %s", attempts, d)
			}
		}
	}
}

func TestFingerprint(t *testing.T) {
	req := Request{CustomerID: "c", Key: "k1", Lines: []Line{{SKU: "a", Quantity: 1}}, PaymentMethod: "tok_a"}
	same, other := req, req
	same.Key = "k2"
	other.Lines = []Line{{SKU: "a", Quantity: 2}}
	if !bytes.Equal(fingerprint(req), fingerprint(same)) {
		t.Error("the key is part of the fingerprint")
	}
	if bytes.Equal(fingerprint(req), fingerprint(other)) {
		t.Error("the lines are not part of the fingerprint")
	}
}
