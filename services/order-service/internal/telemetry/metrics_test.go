package telemetry

import (
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func TestEveryPeerAndEveryOutcomeIsThereFromTheStart(t *testing.T) {
	reader := metric.NewManualReader()
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	t.Cleanup(func() { otel.SetMeterProvider(before) })

	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
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
