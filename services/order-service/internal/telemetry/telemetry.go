// Package telemetry sets OpenTelemetry and logging up. Delivery is batched in the background with
// bounded queues: when the Collector is away telemetry is dropped and counted, never waited for.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	metricapi "go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// collector is the default endpoint of OTLP over HTTP.
const collector = "http://127.0.0.1:4318"

// Telemetry is what Start set up.
type Telemetry struct {
	Log   *slog.Logger
	close []func(context.Context) error
}

// Start installs the global providers and propagator, configured by the OTEL_* variables of the
// OpenTelemetry specification. With OTEL_SDK_DISABLED=true only the log lines on out remain.
func Start(ctx context.Context, out io.Writer, service, version string, level slog.Level) (*Telemetry, error) {
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(
		propagation.TraceContext{}, propagation.Baggage{}))
	plain := NewLogger(out, service, level, nil)
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return &Telemetry{Log: plain}, nil
	}
	last := make(chan time.Time, 1)
	last <- time.Time{}
	otel.SetErrorHandler(&errorLog{log: plain, every: time.Minute, last: last})
	// The SDK's own metrics count what its queues and exporters drop (otel.sdk.*).
	if _, set := os.LookupEnv("OTEL_GO_X_OBSERVABILITY"); !set {
		if err := os.Setenv("OTEL_GO_X_OBSERVABILITY", "true"); err != nil {
			return nil, err
		}
	}
	t := &Telemetry{}
	res, err := newResource(ctx, service, version)
	if err != nil {
		return nil, err
	}
	// Metrics first: the other two count what they drop.
	if err := t.startMetrics(ctx, res); err != nil {
		return nil, err
	}
	if err := t.startTraces(ctx, res); err != nil {
		return nil, err
	}
	logs, err := t.startLogs(ctx, res)
	if err != nil {
		return nil, err
	}
	t.Log = NewLogger(out, service, level, logs)
	return t, nil
}

// Shutdown delivers what is queued, as far as ctx allows.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var errs []error
	for i := len(t.close) - 1; i >= 0; i-- {
		errs = append(errs, t.close[i](ctx))
	}
	return errors.Join(errs...)
}

func newResource(ctx context.Context, service, version string) (*resource.Resource, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(
			semconv.ServiceName(service),
			semconv.ServiceNamespace("prove"),
			semconv.ServiceVersion(version),
			semconv.ServiceInstanceID(fmt.Sprintf("%s-%s-%d", service, host, os.Getpid())),
		),
		resource.WithFromEnv(), // last: the operator's OTEL_RESOURCE_ATTRIBUTES win
	)
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return res, nil
}

// endpoint returns the default one where the environment names none.
func endpoint(signal string) (string, bool) {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_" + signal + "_ENDPOINT"} {
		if os.Getenv(name) != "" {
			return "", false
		}
	}
	return collector + "/v1/" + strings.ToLower(signal), true
}

func (t *Telemetry) startMetrics(ctx context.Context, res *resource.Resource) error {
	var opts []otlpmetrichttp.Option
	if url, ok := endpoint("METRICS"); ok {
		opts = append(opts, otlpmetrichttp.WithEndpointURL(url))
	}
	exporter, err := otlpmetrichttp.New(ctx, opts...)
	if err != nil {
		return fmt.Errorf("metrics exporter: %w", err)
	}
	unused := metric.Stream{Aggregation: metric.AggregationDrop{}}
	provider := metric.NewMeterProvider(
		metric.WithResource(res),
		metric.WithReader(metric.NewPeriodicReader(exporter)),
		// Nothing asks for the sizes of bodies.
		metric.WithView(
			metric.NewView(metric.Instrument{Name: "http.*.body.size"}, unused),
		),
	)
	t.close = append(t.close, provider.Shutdown)
	otel.SetMeterProvider(provider)
	return errors.Join(runtime.Start(), observeCPU())
}

// observeCPU reports process.cpu.time of the semantic conventions, which runtime leaves out.
func observeCPU() error {
	mode := func(name string) metricapi.ObserveOption {
		return metricapi.WithAttributes(attribute.String("cpu.mode", name))
	}
	user, system := mode("user"), mode("system")
	_, err := otel.Meter(Scope).Float64ObservableCounter("process.cpu.time", metricapi.WithUnit("s"),
		metricapi.WithDescription("CPU time of the process."),
		metricapi.WithFloat64Callback(func(_ context.Context, o metricapi.Float64Observer) error {
			var used syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
				return err
			}
			o.Observe(time.Duration(used.Utime.Nano()).Seconds(), user)
			o.Observe(time.Duration(used.Stime.Nano()).Seconds(), system)
			return nil
		}))
	return err
}

func (t *Telemetry) startTraces(ctx context.Context, res *resource.Resource) error {
	var opts []otlptracehttp.Option
	if url, ok := endpoint("TRACES"); ok {
		opts = append(opts, otlptracehttp.WithEndpointURL(url))
	}
	exporter, err := otlptracehttp.New(ctx, opts...)
	if err != nil {
		return fmt.Errorf("trace exporter: %w", err)
	}
	provider := trace.NewTracerProvider(trace.WithResource(res), trace.WithBatcher(exporter))
	t.close = append(t.close, provider.Shutdown)
	otel.SetTracerProvider(provider)
	return nil
}

func (t *Telemetry) startLogs(ctx context.Context, res *resource.Resource) (*sdklog.LoggerProvider, error) {
	var opts []otlploghttp.Option
	if url, ok := endpoint("LOGS"); ok {
		opts = append(opts, otlploghttp.WithEndpointURL(url))
	}
	exporter, err := otlploghttp.New(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("log exporter: %w", err)
	}
	provider := sdklog.NewLoggerProvider(sdklog.WithResource(res),
		sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter)))
	t.close = append(t.close, provider.Shutdown)
	return provider, nil
}
