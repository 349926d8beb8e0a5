package telemetry

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"prove/order-service/internal/order"
)

// backlogPatience is how long a collection of metrics waits for the database.
const backlogPatience = 500 * time.Millisecond

// Scope names the instrumentation of this service.
const Scope = "prove/order-service"

// Names of the service's own metrics. HTTP server, HTTP client and Go runtime metrics come from
// their instrumentation under the names of the semantic conventions.
const (
	orders           = "prove.orders"
	orderValue       = "prove.order.value"
	orderRetries     = "prove.order.retries"
	orderRecovery    = "prove.order.recovery.duration"
	unfinished       = "prove.orders.unfinished"
	oldestUnfinished = "prove.orders.unfinished.oldest"
	checkoutsShed    = "prove.checkouts.shed"
	peerRetries      = "prove.peer.retries"
	breakerState     = "prove.peer.breaker.state"
)

// Metrics holds the instruments.
type Metrics struct {
	meter    metric.Meter
	orders   metric.Int64Counter
	value    metric.Int64Histogram
	putOff   metric.Int64Counter
	recovery metric.Float64Histogram
	shed     metric.Int64Counter
	retries  metric.Int64Counter
}

// NewMetrics registers the instruments with the global meter provider.
func NewMetrics() (*Metrics, error) {
	m := &Metrics{meter: otel.Meter(Scope)}
	var errs [6]error
	m.orders, errs[0] = m.meter.Int64Counter(orders, metric.WithUnit("{order}"),
		metric.WithDescription("Orders by how they ended; unsettled ones are counted again when they end."))
	m.value, errs[1] = m.meter.Int64Histogram(orderValue, metric.WithUnit("{minor}"),
		metric.WithDescription("Total of confirmed orders in minor units of their currency."),
		metric.WithExplicitBucketBoundaries(100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000,
			100_000, 250_000, 1_000_000))
	m.putOff, errs[2] = m.meter.Int64Counter(orderRetries, metric.WithUnit("{retry}"),
		metric.WithDescription("Steps of orders that were put off, to be tried again in the background."))
	m.recovery, errs[3] = m.meter.Float64Histogram(orderRecovery, metric.WithUnit("s"),
		metric.WithDescription("From when an order was first put off, or left by its process, until no step was left."),
		metric.WithExplicitBucketBoundaries(0.1, 0.25, 0.5, 1, 2.5, 5, 7.5, 10, 15, 30, 60, 300, 900))
	m.shed, errs[4] = m.meter.Int64Counter(checkoutsShed, metric.WithUnit("{checkout}"),
		metric.WithDescription("Checkouts refused before anything was done: too many at once, no time left, or a peer that rests."))
	m.retries, errs[5] = m.meter.Int64Counter(peerRetries, metric.WithUnit("{retry}"),
		metric.WithDescription("Retries of requests to a peer; denied ones exceeded the retry budget."))
	m.fromZero()
	return m, errors.Join(errs[:]...)
}

// fromZero lets the counters begin at 0: one that appears with its first event loses that event in
// every rate, and until then nobody can tell "none" from "not measured".
func (m *Metrics) fromZero() {
	ctx := context.Background()
	for _, outcome := range []string{"confirmed", "declined", "short", "price-changed", "refused", "unsettled", "failed", "cancelled"} {
		m.orders.Add(ctx, 0, metric.WithAttributes(attribute.String("prove.outcome", outcome)))
	}
	for _, step := range []order.Step{order.StepReserve, order.StepCharge, order.StepCommit,
		order.StepCancelPayment, order.StepRelease} {
		m.putOff.Add(ctx, 0, metric.WithAttributes(attribute.String("prove.step", string(step))))
	}
	for _, reason := range []string{"busy", "deadline", "peer"} {
		m.shed.Add(ctx, 0, metric.WithAttributes(attribute.String("prove.reason", reason)))
	}
}

// Outcome implements order.Observer.
func (m *Metrics) Outcome(ctx context.Context, outcome string, o *order.Order) {
	m.orders.Add(ctx, 1, metric.WithAttributes(attribute.String("prove.outcome", outcome)))
	if outcome == "confirmed" {
		m.value.Record(ctx, o.TotalMinor, metric.WithAttributes(attribute.String("currency", o.Currency)))
	}
}

// PutOff implements order.Observer.
func (m *Metrics) PutOff(ctx context.Context, o *order.Order) {
	m.putOff.Add(ctx, 1, metric.WithAttributes(attribute.String("prove.step", string(o.Step))))
}

// Recovered implements order.Observer.
func (m *Metrics) Recovered(ctx context.Context, d time.Duration) {
	m.recovery.Record(ctx, d.Seconds())
}

// Shed counts a checkout that was not admitted.
func (m *Metrics) Shed(ctx context.Context, reason string) {
	m.shed.Add(ctx, 1, metric.WithAttributes(attribute.String("prove.reason", reason)))
}

// Retry counts a retry, or one that the budget denied.
func (m *Metrics) Retry(ctx context.Context, peer string, denied bool) {
	m.retried(ctx, 1, peer, denied)
}

func (m *Metrics) retried(ctx context.Context, n int64, peer string, denied bool) {
	m.retries.Add(ctx, n, metric.WithAttributes(
		attribute.String("prove.peer", peer), attribute.Bool("prove.retry.denied", denied)))
}

// ObserveBreaker reports a circuit breaker's state: 0 closed, 1 open, 2 half-open. With it the
// peer's retries begin, at 0.
func (m *Metrics) ObserveBreaker(peer string, breaker func() int64) error {
	m.retried(context.Background(), 0, peer, false)
	m.retried(context.Background(), 0, peer, true)
	state, err := m.meter.Int64ObservableGauge(breakerState,
		metric.WithDescription("State of the circuit breaker towards a peer: 0 closed, 1 open, 2 half-open."))
	if err != nil {
		return err
	}
	attrs := metric.WithAttributes(attribute.String("prove.peer", peer))
	// Registered apart: of the callbacks given with one instrument twice the SDK keeps the first.
	_, err = m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(state, breaker(), attrs)
		return nil
	}, state)
	return err
}

// ObserveBacklog reports the orders with work left and the age of the oldest, 0 when there is none,
// by status: one query for each collection. Without an answer of the database these two are missing, and
// nothing else is.
func (m *Metrics) ObserveBacklog(backlog func(context.Context) (map[order.Status]order.Backlog, error)) error {
	count, err := m.meter.Int64ObservableGauge(unfinished, metric.WithUnit("{order}"),
		metric.WithDescription("Orders that have a step left to take."))
	if err != nil {
		return err
	}
	oldest, err := m.meter.Float64ObservableGauge(oldestUnfinished, metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest order that has a step left to take."))
	if err != nil {
		return err
	}
	_, err = m.meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		ctx, cancel := context.WithTimeout(ctx, backlogPatience)
		defer cancel()
		all, err := backlog(ctx)
		if err != nil {
			return nil //nolint:nilerr // An error, or a long wait, would withhold all other metrics as well.
		}
		for _, status := range []order.Status{order.Pending, order.Reserved, order.Paid, order.Rejected, order.Cancelled} {
			attrs, age := metric.WithAttributes(attribute.String("prove.status", string(status))), 0.0
			b, some := all[status]
			if some {
				age = time.Since(b.Oldest).Seconds()
			}
			o.ObserveInt64(count, b.Orders, attrs)
			o.ObserveFloat64(oldest, age, attrs)
		}
		return nil
	}, count, oldest)
	return err
}
