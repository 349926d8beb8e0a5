package order

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
)

// peers answer as they are told and note what they were asked.
type peers struct {
	reserve       Reservation
	payment       Payment
	done          bool
	err           error // of every call
	extendErr     error
	asked         []string
	charged, undo Charge
	wait          time.Duration
}

func (p *peers) ask(what string) error {
	p.asked = append(p.asked, what)
	return p.err
}

func (p *peers) Reserve(context.Context, string, []Line) (Reservation, error) {
	return p.reserve, p.ask("reserve")
}

func (p *peers) Extend(context.Context, string) error {
	_ = p.ask("extend")
	return p.extendErr
}
func (p *peers) Commit(context.Context, string) error  { return p.ask("commit") }
func (p *peers) Release(context.Context, string) error { return p.ask("release") }

func (p *peers) Charge(_ context.Context, c Charge, wait time.Duration) (Payment, error) {
	p.charged, p.wait = c, wait
	return p.payment, p.ask("charge")
}

func (p *peers) Cancel(_ context.Context, c Charge, wait time.Duration) (bool, error) {
	p.undo, p.wait = c, wait
	return p.done, p.ask("cancel")
}

// Every step with every answer that its peer may give.
func TestSteps(t *testing.T) {
	broken := errors.New("no answer")
	gbp := Reservation{Currency: "GBP", TotalMinor: 500, Lines: []Line{{SKU: "A", Quantity: 2, PriceMinor: 250}}}
	captured := Payment{ID: "p", Captured: true}
	putOff := func(o *Order) { o.putOff(time.Now(), time.Now()) }
	old := func(o *Order) { putOff(o); o.StepSince = time.Now().Add(-time.Hour) }
	free := func(o *Order) { o.TotalMinor = 0 }
	shown := func(total int64) func(*Order) { return func(o *Order) { o.ExpectedTotal = &total } }
	for name, c := range map[string]struct {
		status Status
		step   Step
		change func(*Order)
		peers  peers
		want   Status
		next   Step
		code   Code
		stops  bool
	}{
		"reserved":                {Pending, StepReserve, nil, peers{reserve: gbp}, Reserved, StepCharge, "", false},
		"reserved late":           {Pending, StepReserve, putOff, peers{reserve: gbp}, Reserved, StepCharge, "", false},
		"short":                   {Pending, StepReserve, nil, peers{err: &ShortError{SKU: "A"}}, Rejected, StepNone, StockShort, false},
		"unknown sku":             {Pending, StepReserve, nil, peers{err: &UnknownSKUError{"A"}}, Rejected, StepNone, UnknownSKU, false},
		"refused":                 {Pending, StepReserve, nil, peers{err: ErrRefused}, Rejected, StepNone, Invalid, false},
		"released before":         {Pending, StepReserve, nil, peers{err: ErrGone}, Rejected, StepNone, ReservationGone, false},
		"no reservation":          {Pending, StepReserve, nil, peers{err: broken}, Rejected, StepRelease, Unavailable, false},
		"reserve not sent":        {Pending, StepReserve, nil, peers{err: ErrNotSent}, Rejected, StepNone, Unavailable, false},
		"reserve not sent, later": {Pending, StepReserve, putOff, peers{err: ErrNotSent}, Pending, StepReserve, "", true},
		"no reservation, later":   {Pending, StepReserve, putOff, peers{err: broken}, Pending, StepReserve, "", true},
		"currency":                {Pending, StepReserve, nil, peers{reserve: Reservation{Currency: "EUR"}}, Rejected, StepRelease, CurrencyMismatch, false},
		"price as shown":          {Pending, StepReserve, shown(500), peers{reserve: gbp}, Reserved, StepCharge, "", false},
		"price not as shown":      {Pending, StepReserve, shown(5000), peers{reserve: gbp}, Rejected, StepRelease, PriceChanged, false},
		"charged":                 {Reserved, StepCharge, nil, peers{payment: captured}, Paid, StepCommit, "", false},
		"charged late":            {Reserved, StepCharge, putOff, peers{payment: captured}, Paid, StepCommit, "", false},
		"free":                    {Reserved, StepCharge, free, peers{err: broken}, Paid, StepCommit, "", false},
		"declined":                {Reserved, StepCharge, nil, peers{payment: Payment{Declined: true}}, Rejected, StepRelease, Declined, false},
		"method refused":          {Reserved, StepCharge, nil, peers{err: ErrRefused}, Rejected, StepRelease, UnknownMethod, false},
		"not sent":                {Reserved, StepCharge, nil, peers{err: ErrNotSent}, Rejected, StepRelease, Unavailable, false},
		"not sent, but before":    {Reserved, StepCharge, putOff, peers{err: ErrNotSent}, Reserved, StepCharge, "", true},
		"charge lost":             {Reserved, StepCharge, nil, peers{err: broken}, Reserved, StepCharge, "", true},
		"charge pending":          {Reserved, StepCharge, nil, peers{}, Reserved, StepCharge, "", true},
		"goods gone, late":        {Reserved, StepCharge, putOff, peers{extendErr: ErrGone}, Rejected, StepCancelPayment, ReservationGone, false},
		"not extended":            {Reserved, StepCharge, putOff, peers{extendErr: broken}, Reserved, StepCharge, "", true},
		"given up":                {Reserved, StepCharge, old, peers{err: broken}, Rejected, StepCancelPayment, PaymentTimeout, false},
		"given up, pending":       {Reserved, StepCharge, old, peers{}, Rejected, StepCancelPayment, PaymentTimeout, false},
		"given up, not extended":  {Reserved, StepCharge, old, peers{extendErr: broken}, Rejected, StepCancelPayment, PaymentTimeout, false},
		"known in the end":        {Reserved, StepCharge, old, peers{payment: captured}, Paid, StepCommit, "", false},
		"committed":               {Paid, StepCommit, nil, peers{}, Confirmed, StepNone, "", false},
		"not committed":           {Paid, StepCommit, nil, peers{err: broken}, Paid, StepCommit, "", true},
		"goods gone":              {Paid, StepCommit, nil, peers{err: ErrGone}, Rejected, StepCancelPayment, ReservationGone, false},
		"free goods gone":         {Paid, StepCommit, free, peers{err: ErrGone}, Rejected, StepRelease, ReservationGone, false},
		"payment cancelled":       {Cancelled, StepCancelPayment, nil, peers{done: true}, Cancelled, StepRelease, "", false},
		"payment being cancelled": {Rejected, StepCancelPayment, nil, peers{}, Rejected, StepCancelPayment, "", true},
		"no such charge":          {Cancelled, StepCancelPayment, nil, peers{err: ErrRefused}, Cancelled, StepRelease, "", false},
		"not cancelled":           {Cancelled, StepCancelPayment, nil, peers{err: broken}, Cancelled, StepCancelPayment, "", true},
		"released":                {Rejected, StepRelease, nil, peers{}, Rejected, StepNone, "", false},
		"not released":            {Rejected, StepRelease, nil, peers{err: broken}, Rejected, StepRelease, "", true},
		"unknown step":            {Paid, "dance", nil, peers{}, Paid, "dance", "", true},
	} {
		s := &Service{Stock: &c.peers, Payments: &c.peers, Tracer: noop.NewTracerProvider().Tracer(""),
			Log: slog.New(slog.DiscardHandler), PaymentWait: 3 * time.Second, GiveUp: time.Minute}
		o := &Order{ID: "o", Status: c.status, Step: c.step, StepSince: time.Now(), Currency: "GBP",
			TotalMinor: 500, PaymentMethod: "tok_a", Lines: []Line{{SKU: "A", Quantity: 2}}}
		if c.change != nil {
			c.change(o)
		}
		err := s.take(t.Context(), o)
		var code Code
		if o.Failure != nil {
			code = o.Failure.Code
		}
		if o.Status != c.want || o.Step != c.next || code != c.code || (err != nil) != c.stops {
			t.Errorf("%s: got %s/%s %q, %v; want %s/%s %q", name, o.Status, o.Step, code, err, c.want, c.next, c.code)
		}
		for _, ch := range []Charge{c.peers.charged, c.peers.undo} {
			if ch != (Charge{}) && ch != (Charge{Key: "o", OrderID: "o", AmountMinor: 500, Currency: "GBP", Method: "tok_a"}) {
				t.Errorf("%s: the charge is %+v", name, ch)
			}
		}
		late := !o.PutOffAt.IsZero()
		if c.step == StepCharge && late != (len(c.peers.asked) > 0 && c.peers.asked[0] == "extend") {
			t.Errorf("%s: asked for %v", name, c.peers.asked)
		}
		if want := map[bool]time.Duration{false: 3 * time.Second, true: backgroundWait}[late]; c.peers.wait != 0 && c.peers.wait != want {
			t.Errorf("%s: waits %s, want %s", name, c.peers.wait, want)
		}
	}
}

func TestUndoTakesBackWhateverMayHaveBeenDone(t *testing.T) {
	for status, want := range map[Status]Step{Pending: StepRelease, Reserved: StepCancelPayment,
		Paid: StepCancelPayment, Confirmed: StepCancelPayment} {
		o := &Order{Status: status, TotalMinor: 1}
		if err := o.cancel(time.Now()); err != nil || o.Status != Cancelled || o.Step != want {
			t.Errorf("%s: got %s/%s, %v", status, o.Status, o.Step, err)
		}
	}
	for _, status := range []Status{Rejected, Cancelled} {
		if err := (&Order{Status: status}).cancel(time.Now()); !errors.Is(err, ErrTransition) {
			t.Errorf("%s: got %v", status, err)
		}
	}
}

// outcomes notes what is counted.
type outcomes []string

func (o *outcomes) Outcome(_ context.Context, outcome string, _ *Order) { *o = append(*o, outcome) }
func (o *outcomes) PutOff(context.Context, *Order)                      {}
func (o *outcomes) Recovered(context.Context, time.Duration)            {}

func TestOutcomes(t *testing.T) {
	for code, want := range map[Code]string{"": "confirmed", Declined: "declined", StockShort: "short",
		PriceChanged: "price-changed",
		UnknownSKU:   "refused", CurrencyMismatch: "refused", Invalid: "refused", UnknownMethod: "refused",
		PaymentTimeout: "failed", ReservationGone: "failed", Unavailable: "failed"} {
		var got outcomes
		o := &Order{}
		if code != "" {
			o.Failure = &Failure{Code: code}
		}
		(&Service{Observer: &got, Log: slog.New(slog.DiscardHandler)}).settled(t.Context(), o)
		if len(got) != 1 || got[0] != want {
			t.Errorf("%q counts as %v, want %s", code, got, want)
		}
	}
}
