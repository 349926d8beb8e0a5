package telemetry

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"prove/order-service/internal/order"
)

// measuring is what NewMetrics makes, and a reader of it.
func measuring(t *testing.T) (*Metrics, metric.Reader) {
	t.Helper()
	reader := metric.NewManualReader()
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	t.Cleanup(func() { otel.SetMeterProvider(before) })
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	return m, reader
}

func TestEveryPeerAndEveryOutcomeIsThereFromTheStart(t *testing.T) {
	m, reader := measuring(t)
	for peer, state := range map[string]int64{"product-service": 0, "payment-service": 1} {
		if err := m.ObserveBreaker(peer, func() int64 { return state }); err != nil {
			t.Fatal(err)
		}
	}
	if err := observeCPU(); err != nil {
		t.Fatal(err)
	}
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &collected); err != nil {
		t.Fatal(err)
	}

	series := map[string]int{}
	for _, scope := range collected.ScopeMetrics {
		for _, one := range scope.Metrics {
			switch data := one.Data.(type) {
			case metricdata.Sum[int64]:
				series[one.Name] = len(data.DataPoints)
			case metricdata.Sum[float64]:
				series[one.Name] = len(data.DataPoints)
			case metricdata.Gauge[int64]:
				series[one.Name] = len(data.DataPoints)
			}
		}
	}
	for name, want := range map[string]int{
		orders: 8, orderRetries: 5, checkoutsShed: 3, peerRetries: 4, breakerState: 2, "process.cpu.time": 2,
	} {
		if series[name] != want {
			t.Errorf("%s has %d series, want %d", name, series[name], want)
		}
	}
}

func TestTheBacklogIsToldByStatusAndAge(t *testing.T) {
	m, reader := measuring(t)
	paid := order.Backlog{Orders: 2, Oldest: time.Now().Add(-time.Hour)}
	cancelled := order.Backlog{Orders: 1, Oldest: time.Now().Add(-24 * time.Hour)}
	if err := m.ObserveBacklog(func(context.Context) (map[order.Status]order.Backlog, error) {
		return map[order.Status]order.Backlog{order.Paid: paid, order.Cancelled: cancelled}, nil
	}); err != nil {
		t.Fatal(err)
	}
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &collected); err != nil {
		t.Fatal(err)
	}
	counts, hours := map[string]int64{}, map[string]int{}
	status := func(set attribute.Set) string {
		value, _ := set.Value("prove.status")
		return value.AsString()
	}
	for _, scope := range collected.ScopeMetrics {
		for _, one := range scope.Metrics {
			switch data := one.Data.(type) {
			case metricdata.Gauge[int64]:
				for _, point := range data.DataPoints {
					counts[status(point.Attributes)] = point.Value
				}
			case metricdata.Gauge[float64]:
				for _, point := range data.DataPoints {
					hours[status(point.Attributes)] = int(point.Value / 3600)
				}
			}
		}
	}
	if want := map[string]int64{"pending": 0, "reserved": 0, "paid": 2, "rejected": 0, "cancelled": 1}; !maps.Equal(counts, want) {
		t.Errorf("orders by status: %v", counts)
	}
	if want := map[string]int{"pending": 0, "reserved": 0, "paid": 1, "rejected": 0, "cancelled": 24}; !maps.Equal(hours, want) {
		t.Errorf("hours of the oldest by status: %v", hours)
	}
}

func TestWithoutADatabaseAllOtherMetricsAreThere(t *testing.T) {
	for name, backlog := range map[string]func(context.Context) (map[order.Status]order.Backlog, error){
		"refused": func(context.Context) (map[order.Status]order.Backlog, error) {
			return nil, errors.New("connection refused")
		},
		"no answer": func(ctx context.Context) (map[order.Status]order.Backlog, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, reader := measuring(t)
			if err := m.ObserveBacklog(backlog); err != nil {
				t.Fatal(err)
			}
			var collected metricdata.ResourceMetrics
			if err := reader.Collect(t.Context(), &collected); err != nil {
				t.Fatalf("nothing is exported then: %v", err)
			}
			there := map[string]bool{}
			for _, scope := range collected.ScopeMetrics {
				for _, one := range scope.Metrics {
					there[one.Name] = true
				}
			}
			if !there[orders] || there[unfinished] {
				t.Errorf("there are %v", there)
			}
		})
	}
}
