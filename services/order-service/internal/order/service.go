package order

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
	retryMax = 5 * time.Second
)

// workTime bounds one try at an order in the background.
const workTime = 20 * time.Second

// leaseSlack is how much longer than the work itself an order is left alone by the worker: it
// covers the transactions after the last call.
const leaseSlack = 10 * time.Second

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
	// Timeout is the longest a customer waits for a checkout or a cancellation.
	Timeout time.Duration
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
	o.TraceParent = traceParent(ctx)
	o.DueAt = now.Add(s.lease())
	span.SetAttributes(attribute.String("prove.order.id", o.ID))

	prior, err := s.Store.Create(ctx, o, fingerprint(req), now.Add(-keyLifetime))
	if err != nil {
		return Result{}, s.failed(span, err)
	}
	if prior != nil {
		span.SetAttributes(attribute.String("prove.order.id", prior.Order.ID),
			attribute.Bool("prove.order.replayed", true))
		return s.repeat(ctx, prior)
	}

	answer := s.run(ctx, o)
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
	case p.Order.Attempts > 0: // it was put off, and its customer told so
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

// Cancel refunds and releases a confirmed order. Repeating it is safe; the returned order has a
// step left while the money is still on its way. ErrNotFound, ErrNotCancellable.
func (s *Service) Cancel(ctx context.Context, id string) (*Order, error) {
	ctx, span := s.Tracer.Start(ctx, "cancel order",
		trace.WithAttributes(attribute.String("prove.order.id", id)))
	defer span.End()
	ctx, cancel := s.detach(ctx)
	defer cancel()

	o, err := s.Store.Get(ctx, id)
	if err != nil {
		return nil, s.failed(span, err)
	}
	if o.Status == Cancelled {
		return o, nil
	}
	if err := o.cancel(); err != nil {
		return nil, fmt.Errorf("%w: it is %s", ErrNotCancellable, o.Status)
	}
	o.UpdatedAt = utcNow()
	if err := s.save(ctx, o, nil); err != nil {
		return nil, s.failed(span, err)
	}
	s.Observer.Outcome(ctx, "cancelled", o)
	s.run(ctx, o)
	return o, nil
}

// run takes the order's steps until none is left or one has to be put off. It returns the answer
// that was recorded for the customer on the way, if any.
func (s *Service) run(ctx context.Context, o *Order) (answer *Answer) {
	for o.Step != StepNone {
		before := *o
		if err := s.take(ctx, o); err != nil {
			s.putOff(ctx, o, err)
			return answer
		}
		o.UpdatedAt = utcNow()
		var final *Answer
		if o.Settled() && !before.Settled() {
			a := s.Render(ctx, o)
			final = &a
		}
		if err := s.save(ctx, o, final); err != nil {
			// The step stands recorded as begun: a worker takes it again, which is safe.
			s.Log.ErrorContext(ctx, "order state not recorded", "order_id", o.ID,
				"step", string(before.Step), "error", err.Error())
			failSpan(ctx, err)
			*o = before
			return answer
		}
		if final != nil {
			answer = final
			s.settled(ctx, o)
		}
	}
	return answer
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
	case StepRefund:
		return s.refund(ctx, o)
	case StepRelease:
		return s.release(ctx, o)
	}
	return fmt.Errorf("order %s has the unknown step %q", o.ID, o.Step)
}

var spanNames = map[Step]string{
	StepReserve: "reserve stock",
	StepCharge:  "charge payment",
	StepCommit:  "commit stock",
	StepRefund:  "compensate: refund payment",
	StepRelease: "compensate: release stock",
}

func (s *Service) reserve(ctx context.Context, o *Order) error {
	r, err := s.Stock.Reserve(ctx, o.ID, o.Lines)
	var short *ShortError
	var unknown *UnknownSKUError
	switch {
	case errors.As(err, &short):
		return o.reject(Failure{Code: StockShort, SKU: short.SKU, Available: &short.Available}, StepNone)
	case errors.As(err, &unknown):
		return o.reject(Failure{Code: UnknownSKU, SKU: unknown.SKU}, StepNone)
	case errors.Is(err, ErrRefused):
		return o.reject(Failure{Code: Invalid, Reason: err.Error()}, StepNone)
	case err != nil && o.Attempts > 0:
		return err
	case err != nil:
		// Nothing is charged, so the customer may simply try again; stock that may be held after
		// all is released.
		failSpan(ctx, err)
		return o.reject(Failure{Code: Unavailable, Reason: "the catalogue did not answer"}, StepRelease)
	case o.Currency != "" && o.Currency != r.Currency:
		reason := "prices are in " + r.Currency
		return o.reject(Failure{Code: CurrencyMismatch, Reason: reason}, StepRelease)
	}
	trace.SpanFromContext(ctx).AddEvent("stock reserved", trace.WithAttributes(
		attribute.Int64("prove.order.total_minor", r.TotalMinor)))
	return o.reserved(r)
}

func (s *Service) charge(ctx context.Context, o *Order) error {
	if o.TotalMinor == 0 {
		return o.charged("") // nothing to pay
	}
	if o.Attempts > 0 {
		// The charge is asked for again long after the reservation was made. Goods that are gone
		// do not stop it: the money may have been taken, and only asking tells. Commit decides.
		if err := s.Stock.Extend(ctx, o.ID); err != nil && !errors.Is(err, ErrGone) {
			return err
		}
	}
	p, err := s.Payments.Charge(ctx, Charge{
		OrderID: o.ID, AmountMinor: o.TotalMinor, Currency: o.Currency, Method: o.PaymentMethod,
	})
	span := trace.SpanFromContext(ctx)
	switch {
	case errors.Is(err, ErrRefused):
		return o.reject(Failure{Code: UnknownMethod, Reason: err.Error()}, StepRelease)
	case errors.Is(err, ErrNotSent) && o.Attempts == 0:
		// Only on the first try: later, an earlier one may have arrived.
		failSpan(ctx, err)
		return o.reject(Failure{Code: Unavailable, Reason: "payment cannot be reached"}, StepRelease)
	case err != nil:
		return fmt.Errorf("payment outcome unknown: %w", err)
	case p.Declined:
		span.AddEvent("payment declined", trace.WithAttributes(attribute.String("prove.payment.reason", p.Reason)))
		o.PaymentID = p.ID
		return o.reject(Failure{Code: Declined, Reason: p.Reason}, StepRelease)
	case !p.Captured:
		return errors.New("the acquirer has not answered yet")
	}
	span.AddEvent("payment captured", trace.WithAttributes(attribute.String("prove.payment.id", p.ID)))
	return o.charged(p.ID)
}

func (s *Service) commit(ctx context.Context, o *Order) error {
	err := s.Stock.Commit(ctx, o.ID)
	switch {
	case errors.Is(err, ErrGone):
		return o.reject(Failure{Code: ReservationGone, Reason: "the payment is refunded"}, StepRefund)
	case err != nil:
		return err
	}
	return o.committed()
}

func (s *Service) refund(ctx context.Context, o *Order) error {
	if o.PaymentID != "" {
		done, err := s.Payments.Refund(ctx, o.PaymentID)
		if err != nil {
			return err
		}
		if !done {
			return errors.New("the refund is under way")
		}
	}
	o.next(StepRelease)
	return nil
}

func (s *Service) release(ctx context.Context, o *Order) error {
	if err := s.Stock.Release(ctx, o.ID); err != nil {
		return err
	}
	o.next(StepNone)
	return nil
}

// putOff hands the order to the worker.
func (s *Service) putOff(ctx context.Context, o *Order, cause error) {
	o.Attempts++
	delay := backoff(o.Attempts)
	o.UpdatedAt = utcNow()
	o.DueAt = o.UpdatedAt.Add(delay)
	s.Log.WarnContext(ctx, "order put off", "order_id", o.ID, "status", string(o.Status),
		"step", string(o.Step), "attempts", o.Attempts, "retry_ms", delay.Milliseconds(),
		"error", cause.Error())
	trace.SpanFromContext(ctx).AddEvent("order put off", trace.WithAttributes(
		attribute.String("prove.order.step", string(o.Step)),
		attribute.Int("prove.order.attempts", o.Attempts)))
	if err := s.Store.Save(ctx, o, nil); err != nil {
		s.Log.ErrorContext(ctx, "order state not recorded", "order_id", o.ID, "error", err.Error())
	}
}

func (s *Service) save(ctx context.Context, o *Order, final *Answer) error {
	o.DueAt = o.UpdatedAt.Add(s.lease())
	return s.Store.Save(ctx, o, final)
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
	default:
		s.Observer.Outcome(ctx, "failed", o)
	}
}

func (s *Service) lease() time.Duration { return max(s.Timeout, workTime) + leaseSlack }

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
