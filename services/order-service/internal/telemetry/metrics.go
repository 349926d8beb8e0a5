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

// Scope names the instrumentation of this service.
const Scope = "prove/order-service"

// Names of the service's own metrics. HTTP server, HTTP client and Go runtime metrics come from
// their instrumentation under the names of the semantic conventions.
const (
	orders           = "prove.orders"
	orderValue       = "prove.order.value"
	oldestUnfinished = "prove.orders.unfinished.oldest"
	peerRetries      = "prove.peer.retries"
	breakerState     = "prove.peer.breaker.state"
)

// Metrics holds the instruments.
type Metrics struct {
	meter   metric.Meter
	orders  metric.Int64Counter
	value   metric.Int64Histogram
	retries metric.Int64Counter
}

// NewMetrics registers the instruments with the global meter provider.
func NewMetrics() (*Metrics, error) {
	m := &Metrics{meter: otel.Meter(Scope)}
	var errs [3]error
	m.orders, errs[0] = m.meter.Int64Counter(orders, metric.WithUnit("{order}"),
		metric.WithDescription("Orders by how they ended; unsettled ones are counted again when they end."))
	m.value, errs[1] = m.meter.Int64Histogram(orderValue, metric.WithUnit("{minor}"),
		metric.WithDescription("Total of confirmed orders in minor units of their currency."),
		metric.WithExplicitBucketBoundaries(100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000,
			100_000, 250_000, 1_000_000))
	m.retries, errs[2] = m.meter.Int64Counter(peerRetries, metric.WithUnit("{retry}"),
		metric.WithDescription("Retries of requests to a peer; denied ones exceeded the retry budget."))
	return m, errors.Join(errs[:]...)
}

// Outcome implements order.Observer.
func (m *Metrics) Outcome(ctx context.Context, outcome string, o *order.Order) {
	m.orders.Add(ctx, 1, metric.WithAttributes(attribute.String("prove.outcome", outcome)))
	if outcome == "confirmed" {
		m.value.Record(ctx, o.TotalMinor, metric.WithAttributes(attribute.String("currency", o.Currency)))
	}
}

// Retry counts a retry, or one that the budget denied.
func (m *Metrics) Retry(ctx context.Context, peer string, denied bool) {
	m.retries.Add(ctx, 1, metric.WithAttributes(
		attribute.String("prove.peer", peer), attribute.Bool("prove.retry.denied", denied)))
}

// ObserveBreaker reports a circuit breaker's state: 0 closed, 1 open, 2 half-open.
func (m *Metrics) ObserveBreaker(peer string, state func() int64) error {
	attrs := metric.WithAttributes(attribute.String("prove.peer", peer))
	_, err := m.meter.Int64ObservableGauge(breakerState,
		metric.WithDescription("State of the circuit breaker towards a peer: 0 closed, 1 open, 2 half-open."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(state(), attrs)
			return nil
		}))
	return err
}

// ObserveOldest reports the age of the oldest order with work left, 0 when there is none.
func (m *Metrics) ObserveOldest(created func(context.Context) (time.Time, error)) error {
	_, err := m.meter.Float64ObservableGauge(oldestUnfinished, metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest order that has a step left to take."),
		metric.WithFloat64Callback(func(ctx context.Context, o metric.Float64Observer) error {
			t, err := created(ctx)
			if err != nil {
				return err
			}
			age := 0.0
			if !t.IsZero() {
				age = time.Since(t).Seconds()
			}
			o.Observe(age)
			return nil
		}))
	return err
}
