package order

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// keyLifetime is how long an idempotency key is remembered.
const keyLifetime = 24 * time.Hour

// retryMin and retryMax bound the delay between two tries of a step in the background.
const (
	retryMin = 250 * time.Millisecond
	retryMax = 2 * time.Second
)

// Service carries orders through their steps.
type Service struct {
	Store    Store
	Stock    Stock
	Payments Payments
	Observer Observer
	Log      *slog.Logger
	Tracer   trace.Tracer
	// Render makes the answer to a checkout from the order's state.
	Render func(ctx context.Context, o *Order) Answer
	// Resting names a peer that does not answer at the moment, or is empty.
	Resting func() string
	// Worker is this process among those that share the store. It differs from start to start.
	Worker string
	// Timeout is the longest a customer waits for a checkout or a cancellation.
	Timeout time.Duration
	// PaymentWait is how long a charge may wait for the acquirer while its customer waits.
	PaymentWait time.Duration
	// GiveUp is how long the outcome of a charge may stay unknown until it is cancelled.
	GiveUp time.Duration

	alive    atomic.Bool // the last beat was recorded
	stranded stranded
}

// Result of a checkout.
type Result struct {
	OrderID  string
	Answer   Answer
	Replayed bool
}

// Checkout makes an order, or answers as the first request with the same key was answered.
// ErrKeyReused, ErrKeyInFlight; a rejected order is a Result, not an error.
func (s *Service) Checkout(ctx context.Context, req Request) (Result, error) {
	ctx, span := s.Tracer.Start(ctx, "checkout", trace.WithAttributes(
		attribute.Int("prove.order.lines", len(req.Lines))))
	defer span.End()
	ctx, cancel := s.detach(ctx)
	defer cancel()

	now := utcNow()
	o, err := newOrder(req, now)
	if err != nil {
		return Result{}, s.failed(span, err)
	}
	o.TraceParent, o.Owner = traceParent(ctx), s.Worker
	span.SetAttributes(attribute.String("prove.order.id", o.ID))
	var prior *Prior
	// An order that cannot go on is not begun: during an outage each would be one to compensate.
	if peer := s.Resting(); peer == "" {
		prior, err = s.Store.Create(ctx, o, fingerprint(req), now.Add(-keyLifetime))
	} else if prior, err = s.Store.Known(ctx, req.CustomerID, req.Key, fingerprint(req), now.Add(-keyLifetime)); prior == nil && err == nil {
		return Result{}, s.failed(span, fmt.Errorf("%w: %s does not answer at the moment", ErrNotBegun, peer))
	}
	switch {
	case errors.Is(err, ErrKeyReused):
		return Result{}, s.failed(span, err)
	case err != nil:
		s.stranded.add(o.ID, drop)
		return Result{}, s.failed(span, err)
	case prior != nil:
		span.SetAttributes(attribute.String("prove.order.id", prior.Order.ID),
			attribute.Bool("prove.order.replayed", true))
		return s.repeat(ctx, prior)
	}
	answer, err := s.run(ctx, o)
	if err != nil {
		return Result{}, s.failed(span, err)
	}
	if !o.Settled() {
		s.Observer.Outcome(ctx, "unsettled", o)
	}
	span.SetAttributes(
		attribute.Int64("prove.order.total_minor", o.TotalMinor),
		attribute.String("prove.order.currency", o.Currency),
		attribute.String("prove.order.status", string(o.Status)))
	if o.Failure != nil {
		span.SetAttributes(attribute.String("prove.order.failure", string(o.Failure.Code)))
		if o.Failure.Code == Unavailable {
			span.SetStatus(codes.Error, o.Failure.Reason)
		}
	}
	if answer == nil {
		a := s.Render(ctx, o)
		answer = &a
	}
	return Result{OrderID: o.ID, Answer: *answer}, nil
}

func (s *Service) repeat(ctx context.Context, p *Prior) (Result, error) {
	switch {
	case p.Answer != nil:
		return Result{OrderID: p.Order.ID, Answer: *p.Answer, Replayed: true}, nil
	case !p.Order.PutOffAt.IsZero(): // nobody waits for it any more
		return Result{OrderID: p.Order.ID, Answer: s.Render(ctx, p.Order)}, nil
	default:
		return Result{}, ErrKeyInFlight
	}
}

// Get returns one order or ErrNotFound.
func (s *Service) Get(ctx context.Context, id string) (*Order, error) { return s.Store.Get(ctx, id) }

// List returns a customer's orders, newest first.
func (s *Service) List(ctx context.Context, customer, before string, limit int) ([]*Order, error) {
	return s.Store.List(ctx, customer, before, limit)
}

// States returns what an order went through, oldest first.
func (s *Service) States(ctx context.Context, id string) ([]State, error) {
	return s.Store.States(ctx, id)
}

// Cancel ends an order that is not rejected: the payment is cancelled and the stock released. Whoever
// is working on the order at that moment loses it. Repeating it is safe; the returned order has a
// step left while that is still under way. ErrNotFound, ErrNotCancellable.
func (s *Service) Cancel(ctx context.Context, id string) (*Order, error) {
	ctx, span := s.Tracer.Start(ctx, "cancel order",
		trace.WithAttributes(attribute.String("prove.order.id", id)))
	defer span.End()
	ctx, cancel := s.detach(ctx)
	defer cancel()
	for {
		o, err := s.Store.Get(ctx, id)
		if err != nil {
			return nil, s.failed(span, err)
		}
		if o.Status == Cancelled {
			return o, nil
		}
		waiting := !o.Settled()
		if err := o.cancel(utcNow()); err != nil {
			return nil, fmt.Errorf("%w: it is %s", ErrNotCancellable, o.Status)
		}
		var final *Answer
		if waiting {
			a := s.Render(ctx, o)
			final = &a
		}
		o.Owner = s.Worker
		err = s.Store.Save(ctx, o, final)
		switch {
		case errors.Is(err, ErrConflict) && ctx.Err() == nil:
			continue // its checkout went on meanwhile
		case errors.Is(err, ErrConflict):
			return nil, s.failed(span, err)
		case err != nil:
			s.stranded.add(o.ID, goOn)
			return nil, s.failed(span, err)
		}
		s.Log.InfoContext(ctx, "order cancelled", "order_id", o.ID)
		s.Observer.Outcome(ctx, "cancelled", o)
		if _, err := s.run(ctx, o); err != nil {
			return nil, s.failed(span, err)
		}
		return o, nil
	}
}

// run takes the order's steps until none is left or one has to be put off. It returns the answer
// that is kept for the customer, if any. Whoever loses the order to somebody else on the way gets it
// as that one recorded it; an error means that this could not be read.
func (s *Service) run(ctx context.Context, o *Order) (answer *Answer, err error) {
	for o.Step != StepNone {
		before := *o
		stop := s.take(ctx, o)
		var final *Answer
		if stop != nil {
			s.putOff(ctx, o, stop)
		} else if o.Settled() && !before.Settled() {
			a := s.Render(ctx, o)
			final = &a
		}
		putOffAt := o.PutOffAt
		if o.Step == StepNone {
			o.Owner, o.PutOffAt = "", time.Time{}
		}
		err := s.Store.Save(ctx, o, final)
		switch {
		case errors.Is(err, ErrConflict):
			s.Log.InfoContext(ctx, "order is somebody else's by now", "order_id", o.ID, "step", string(before.Step))
			if answer != nil {
				return answer, nil
			}
			prior, err := s.Store.Prior(ctx, o.ID)
			if err != nil {
				return nil, err
			}
			*o = *prior.Order
			return prior.Answer, nil
		case err != nil:
			// The step stands recorded as begun: taking it again is safe.
			s.Log.ErrorContext(ctx, "order state not recorded", "order_id", o.ID,
				"step", string(before.Step), "error", err.Error())
			failSpan(ctx, err)
			s.stranded.add(o.ID, goOn)
			*o = before
			return answer, nil
		}
		if final != nil {
			answer = final
			s.settled(ctx, o)
		}
		if o.Step == StepNone && !putOffAt.IsZero() {
			s.Observer.Recovered(ctx, o.UpdatedAt.Sub(putOffAt))
		}
		if stop != nil {
			return answer, nil
		}
	}
	return answer, nil
}

// take does the order's next step and moves the order on. An error leaves the order as it was.
func (s *Service) take(ctx context.Context, o *Order) (err error) {
	name := spanNames[o.Step]
	ctx, span := s.Tracer.Start(ctx, name, trace.WithAttributes(
		attribute.String("prove.order.id", o.ID), attribute.Int("prove.order.attempt", o.Attempts+1)))
	defer func() {
		if err != nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()
	switch o.Step {
	case StepReserve:
		return s.reserve(ctx, o)
	case StepCharge:
		return s.charge(ctx, o)
	case StepCommit:
		return s.commit(ctx, o)
	case StepCancelPayment:
		return s.cancelPayment(ctx, o)
	case StepRelease:
		return s.release(ctx, o)
	}
	return fmt.Errorf("order %s has the unknown step %q", o.ID, o.Step)
}

var spanNames = map[Step]string{
	StepReserve:       "reserve stock",
	StepCharge:        "charge payment",
	StepCommit:        "commit stock",
	StepCancelPayment: "compensate: cancel payment",
	StepRelease:       "compensate: release stock",
}

func (s *Service) reserve(ctx context.Context, o *Order) error {
	r, err := s.Stock.Reserve(ctx, o.ID, o.Lines)
	now := utcNow()
	var short *ShortError
	var unknown *UnknownSKUError
	switch {
	case errors.As(err, &short):
		return o.reject(Failure{Code: StockShort, SKU: short.SKU, Available: &short.Available}, StepNone, now)
	case errors.As(err, &unknown):
		return o.reject(Failure{Code: UnknownSKU, SKU: unknown.SKU}, StepNone, now)
	case errors.Is(err, ErrRefused):
		return o.reject(Failure{Code: Invalid, Reason: err.Error()}, StepNone, now)
	case errors.Is(err, ErrGone):
		return o.reject(Failure{Code: ReservationGone, Reason: "nothing is charged"}, StepNone, now)
	case err != nil && !o.PutOffAt.IsZero():
		return err
	case errors.Is(err, ErrNotSent):
		failSpan(ctx, err)
		return o.reject(Failure{Code: Unavailable, Reason: "the catalogue cannot be reached"}, StepNone, now)
	case err != nil && ctx.Err() != nil:
		failSpan(ctx, err)
		reason := "the time for the order ended before the catalogue answered"
		return o.reject(Failure{Code: Unavailable, Reason: reason}, o.undo(), now)
	case err != nil:
		// Nothing is charged, so the customer may simply try again; stock that may be held after
		// all is released.
		failSpan(ctx, err)
		return o.reject(Failure{Code: Unavailable, Reason: "the catalogue did not answer"}, o.undo(), now)
	case o.Currency != "" && o.Currency != r.Currency:
		reason := "prices are in " + r.Currency
		return o.reject(Failure{Code: CurrencyMismatch, Reason: reason}, o.undo(), now)
	case o.ExpectedTotal != nil && *o.ExpectedTotal != r.TotalMinor:
		// The catalogue that the customer saw was wrong, or has changed: not for us to decide.
		reason := fmt.Sprintf("the goods cost %d, not %d", r.TotalMinor, *o.ExpectedTotal)
		return o.reject(Failure{Code: PriceChanged, Reason: reason, Total: &r.TotalMinor}, o.undo(), now)
	}
	trace.SpanFromContext(ctx).AddEvent("stock reserved", trace.WithAttributes(
		attribute.Int64("prove.order.total_minor", r.TotalMinor)))
	return o.reserved(r, now)
}

func (s *Service) charge(ctx context.Context, o *Order) (err error) {
	if o.TotalMinor == 0 {
		return o.charged("", utcNow()) // nothing to pay
	}
	if o.Attempts > 0 {
		// The charge is asked for again long after the reservation was made.
		err = s.Stock.Extend(ctx, o.ID)
	}
	var p Payment
	if err == nil {
		p, err = s.Payments.Charge(ctx, o.charge(), s.wait(o))
	}
	span, now := trace.SpanFromContext(ctx), utcNow()
	switch {
	case errors.Is(err, ErrGone):
		return o.reject(Failure{Code: ReservationGone, Reason: "the payment is cancelled"}, o.undo(), now)
	case errors.Is(err, ErrRefused):
		return o.reject(Failure{Code: UnknownMethod, Reason: err.Error()}, StepRelease, now)
	case errors.Is(err, ErrNotSent) && o.PutOffAt.IsZero():
		// Only on the first try: later, an earlier one may have arrived.
		failSpan(ctx, err)
		return o.reject(Failure{Code: Unavailable, Reason: "payment cannot be reached"}, StepRelease, now)
	case err == nil && p.Declined:
		span.AddEvent("payment declined", trace.WithAttributes(attribute.String("prove.payment.reason", p.Reason)))
		o.PaymentID = p.ID
		return o.reject(Failure{Code: Declined, Reason: p.Reason}, StepRelease, now)
	case err == nil && p.Captured:
		span.AddEvent("payment captured", trace.WithAttributes(attribute.String("prove.payment.id", p.ID)))
		return o.charged(p.ID, now)
	case now.Sub(o.StepSince) >= s.GiveUp:
		reason := "the payment's outcome could not be learned; it is cancelled"
		return o.reject(Failure{Code: PaymentTimeout, Reason: reason}, o.undo(), now)
	case err == nil:
		return errors.New("the acquirer has not answered yet")
	}
	return fmt.Errorf("payment outcome unknown: %w", err)
}

func (s *Service) commit(ctx context.Context, o *Order) error {
	err := s.Stock.Commit(ctx, o.ID)
	switch {
	case errors.Is(err, ErrGone):
		return o.reject(Failure{Code: ReservationGone, Reason: "the payment is cancelled"}, o.undo(), utcNow())
	case err != nil:
		return err
	}
	return o.committed(utcNow())
}

func (s *Service) cancelPayment(ctx context.Context, o *Order) error {
	done, err := s.Payments.Cancel(ctx, o.charge(), s.wait(o))
	switch {
	case errors.Is(err, ErrRefused): // nor would the charge be accepted, now or later
	case err != nil:
		return err
	case !done:
		return errors.New("cancelling the payment is under way")
	}
	o.next(StepRelease, utcNow())
	return nil
}

func (s *Service) release(ctx context.Context, o *Order) error {
	if err := s.Stock.Release(ctx, o.ID); err != nil {
		return err
	}
	o.next(StepNone, utcNow())
	return nil
}

// wait is how long the Payment Service may wait for the acquirer. In the background one order that
// waits is soon asked for again, and must not keep others from being taken up.
func (s *Service) wait(o *Order) time.Duration {
	if o.PutOffAt.IsZero() {
		return s.PaymentWait
	}
	return min(s.PaymentWait, backgroundWait)
}

// putOff hands the order to the workers; it is not recorded yet.
func (s *Service) putOff(ctx context.Context, o *Order, cause error) {
	now, delay := utcNow(), backoff(o.Attempts+1)
	if errors.Is(ctx.Err(), context.Canceled) { // this process ends: another may go on at once
		delay = 0
	}
	o.putOff(now, now.Add(delay))
	s.Log.WarnContext(ctx, "order put off", "order_id", o.ID, "status", string(o.Status),
		"step", string(o.Step), "attempts", o.Attempts, "retry_ms", delay.Milliseconds(),
		"error", cause.Error())
	trace.SpanFromContext(ctx).AddEvent("order put off", trace.WithAttributes(
		attribute.String("prove.order.step", string(o.Step)),
		attribute.Int("prove.order.attempts", o.Attempts)))
	s.Observer.PutOff(ctx, o)
}

func (s *Service) settled(ctx context.Context, o *Order) {
	attrs := []any{"order_id", o.ID, "total_minor", o.TotalMinor, "currency", o.Currency}
	if o.Failure == nil {
		s.Log.InfoContext(ctx, "order confirmed", attrs...)
		s.Observer.Outcome(ctx, "confirmed", o)
		return
	}
	attrs = append(attrs, "failure", string(o.Failure.Code), "reason", o.Failure.Reason)
	s.Log.InfoContext(ctx, "order rejected", attrs...)
	switch o.Failure.Code {
	case Declined:
		s.Observer.Outcome(ctx, "declined", o)
	case StockShort:
		s.Observer.Outcome(ctx, "short", o)
	case PriceChanged:
		s.Observer.Outcome(ctx, "price-changed", o)
	case UnknownSKU, CurrencyMismatch, UnknownMethod, Invalid:
		s.Observer.Outcome(ctx, "refused", o) // the client's mistake, not a failure of the shop
	default:
		s.Observer.Outcome(ctx, "failed", o)
	}
}

// detach keeps the work going when the customer hangs up, within the time the customer gave it.
func (s *Service) detach(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(s.Timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	return context.WithDeadline(context.WithoutCancel(ctx), deadline)
}

func (s *Service) failed(span trace.Span, err error) error {
	span.RecordError(err)
	span.SetStatus(codes.Error, err.Error())
	return err
}

func failSpan(ctx context.Context, err error) {
	span := trace.SpanFromContext(ctx)
	span.RecordError(err)
	span.SetStatus(codes.Error, err.Error())
}

// backoff doubles from retryMin to retryMax with full jitter upon the upper half, so that orders
// put off together do not come back together.
func backoff(attempts int) time.Duration {
	d := retryMax
	if attempts < 6 {
		d = min(retryMin<<(attempts-1), retryMax)
	}
	return d/2 + rand.N(d/2)
}

// fingerprint tells two requests under one key apart.
func fingerprint(req Request) []byte {
	req.Key = ""
	raw, err := json.Marshal(req)
	if err != nil {
		panic(err) // strings and integers always marshal
	}
	sum := sha256.Sum256(raw)
	return sum[:]
}

func traceParent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	return carrier["traceparent"]
}

// utcNow has the precision the store keeps.
func utcNow() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
