package telemetry

import (
	"context"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/trace"
)

// NewLogger writes one JSON object a line to out, and every record to provider unless it is nil.
func NewLogger(out io.Writer, service string, level slog.Level, provider log.LoggerProvider) *slog.Logger {
	lines := slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level, ReplaceAttr: rename})
	var h slog.Handler = &contextHandler{
		Handler: lines.WithAttrs([]slog.Attr{slog.String("service", service)}),
		level:   level, spans: true,
	}
	if provider != nil {
		bridge := otelslog.NewHandler(Scope, otelslog.WithLoggerProvider(provider))
		h = slog.NewMultiHandler(h, &contextHandler{Handler: bridge, level: level})
	}
	return slog.New(h).With("logger", Scope)
}

// cards are masked as the Collector does (observability/collector); lines on stdout don't get there.
var cards = regexp.MustCompile(`\b(?:[2-6]\d{3}(?:\d{12}(?:\d{3})?|(?:(?:[ +-]|%20)\d{4}){3})` +
	`|3[47]\d{2}(?:\d{11}|(?:[ +-]|%20)\d{6}(?:[ +-]|%20)\d{5}))\b`)

const cardDigits = 15 // the shortest has

// HoldsCard tells whether there is what looks like a card number in the text.
func HoldsCard(text string) bool { return cards.MatchString(text) }

// maskCards is for what callers choose, and errors quote: no card number is logged on purpose.
func maskCards(v slog.Value) slog.Value {
	text := ""
	switch v.Kind() {
	case slog.KindString:
		text = v.String()
	case slog.KindAny:
		if err, ok := v.Any().(error); ok {
			text = err.Error()
		}
	}
	digits := 0
	for i := range len(text) { // far cheaper than the expression, and mostly the end of it
		if '0' <= text[i] && text[i] <= '9' {
			digits++
		}
	}
	if digits < cardDigits {
		return v
	}
	return slog.StringValue(cards.ReplaceAllLiteralString(text, "****"))
}

// rename gives the fields of slog the names that all services of prove use.
func rename(groups []string, a slog.Attr) slog.Attr {
	if a.Key != "trace_id" && a.Key != "span_id" { // ours, and may look like one
		a.Value = maskCards(a.Value)
	}
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.String("ts", a.Value.Time().UTC().Format("2006-01-02T15:04:05.000000Z"))
	case slog.LevelKey:
		level, _ := a.Value.Any().(slog.Level)
		return slog.String("level", levelName(level))
	case slog.MessageKey:
		a.Key = "event"
	}
	return a
}

func levelName(l slog.Level) string {
	if l == slog.LevelWarn {
		return "warning"
	}
	return strings.ToLower(l.String())
}

// contextHandler adds what the context knows. The OTLP bridge takes the span from it by itself.
type contextHandler struct {
	slog.Handler
	level slog.Level
	spans bool
}

func (h *contextHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *contextHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.spans {
		if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
			r.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
		}
	}
	if id := RequestID(ctx); id != "" {
		r.AddAttrs(slog.String("request_id", id))
	}
	return h.Handler.Handle(ctx, r)
}

func (h *contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &contextHandler{h.Handler.WithAttrs(attrs), h.level, h.spans}
}

func (h *contextHandler) WithGroup(name string) slog.Handler {
	return &contextHandler{h.Handler.WithGroup(name), h.level, h.spans}
}

// errorLog reports failures of the telemetry itself: to out alone, or they would feed themselves,
// and at most once a minute, for an exporter that is down fails several times a second.
type errorLog struct {
	log   *slog.Logger
	every time.Duration
	last  chan time.Time // holds the time of the last report; also the lock
}

func (e *errorLog) Handle(err error) {
	select {
	case last := <-e.last:
		if now := time.Now(); now.Sub(last) >= e.every {
			e.log.Warn("telemetry is not delivered; the service goes on", "error", err.Error())
			last = now
		}
		e.last <- last
	default: // somebody else is reporting
	}
}
