// Package httpapi serves the orders over HTTP.
package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"prove/order-service/internal/fault"
	"prove/order-service/internal/order"
	"prove/order-service/internal/peer"
	"prove/order-service/internal/telemetry"
)

// maxHeaderBytes is the most a request's headers may have; the server's own limit lies above, so
// that a client who exceeds this one is told so in the usual form.
const maxHeaderBytes = 16 << 10

// Database is what the health checks look at.
type Database interface {
	Ping(context.Context) error
	Migrated(context.Context) error
}

// Options are the parts that the handlers are made of.
type Options struct {
	Orders       *order.Service
	Admission    bulkhead.Bulkhead[any]                   // of checkouts
	Shed         func(ctx context.Context, reason string) // counts those not admitted
	Database     Database
	Faults       *fault.Leases
	Log          *slog.Logger
	Peers        func() map[string]string // state of each peer
	Draining     func() bool              // true once a shutdown has begun
	AdminToken   string
	MaxBodyBytes int64
	Address      string // host:port, under which telemetry knows this server
	Version      string
}

type server struct {
	Options
	api      huma.API
	migrated atomic.Bool
}

// Exempt routes have no faults; those of health have no spans, metrics and log lines either.
var (
	health = map[string]bool{"/livez": true, "/readyz": true, "/startupz": true}
	exempt = map[string]bool{"/livez": true, "/readyz": true, "/startupz": true,
		"/openapi.json": true, "/faults": true, "/faults/{name}": true}
)

// useProblems makes huma's errors problems; huma has only global variables for that.
var useProblems = sync.OnceFunc(func() {
	gin.SetMode(gin.ReleaseMode)
	huma.NewErrorWithContext = fromHuma
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		return fromHuma(nil, status, message, errs...)
	}
})

// New returns the handler of the whole service and its OpenAPI document.
func New(o Options) (http.Handler, []byte, error) {
	useProblems()
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.RedirectTrailingSlash = false
	engine.ContextWithFallback = true
	s := &server{Options: o}
	engine.Use(s.observe, gin.CustomRecoveryWithWriter(io.Discard, s.recovered), s.limitHeaders, s.faults)
	engine.NoRoute(func(c *gin.Context) { abort(c, notFound, "") })
	engine.NoMethod(func(c *gin.Context) {
		abort(c, methodNot, "use "+c.Writer.Header().Get("Allow"))
	})

	config := huma.DefaultConfig("prove order-service", o.Version)
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil // no $schema links in the answers
	config.RejectUnknownQueryParameters = true
	s.api = humagin.New(engine, config)
	s.registerOrders()
	s.registerFaults()
	s.registerHealth()
	document, err := json.MarshalIndent(s.api.OpenAPI(), "", "  ")
	if err != nil {
		return nil, nil, fmt.Errorf("making the OpenAPI document: %w", err)
	}
	engine.GET("/openapi.json", func(c *gin.Context) { c.Data(http.StatusOK, "application/json", document) })

	return otelhttp.NewHandler(engine, "",
		otelhttp.WithServerName(o.Address),
		otelhttp.WithFilter(func(r *http.Request) bool { return !health[r.URL.Path] }),
	), document, nil
}

var requestIDRE = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// observe ties a request to its id, its route and the time its caller gives it, and logs it.
func (s *server) observe(c *gin.Context) {
	start := time.Now()
	route := template(c.FullPath())
	span := trace.SpanFromContext(c.Request.Context())
	if route != "" {
		c.Request.Pattern = c.Request.Method + " " + route // names the span and labels the metrics
		span.SetAttributes(semconv.HTTPRoute(route))
	}
	id := c.GetHeader("X-Request-Id")
	if !requestIDRE.MatchString(id) || telemetry.HoldsCard(id) {
		random := uuid.New()
		id = fmt.Sprintf("%x", random[:])
	}
	c.Header("X-Request-Id", id)
	ctx := telemetry.WithRequestID(c.Request.Context(), id)
	span.SetAttributes(attribute.String("prove.request_id", id))
	if left, err := strconv.ParseInt(c.GetHeader(peer.TimeoutHeader), 10, 32); err == nil && left >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, start.Add(time.Duration(left)*time.Millisecond))
		defer cancel()
	}
	c.Request = c.Request.WithContext(ctx)

	c.Next()

	if health[route] {
		return
	}
	s.Log.LogAttrs(ctx, slog.LevelInfo, "request",
		slog.String("method", c.Request.Method), slog.String("route", route),
		slog.Int("status", c.Writer.Status()),
		slog.Float64("duration_ms", float64(time.Since(start).Microseconds())/1000))
}

// template turns gin's path into the one of the OpenAPI document: /orders/:id to /orders/{id}.
func template(path string) string {
	if !strings.Contains(path, ":") {
		return path
	}
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if name, ok := strings.CutPrefix(part, ":"); ok {
			parts[i] = "{" + name + "}"
		}
	}
	return strings.Join(parts, "/")
}

func (s *server) recovered(c *gin.Context, cause any) {
	s.Log.ErrorContext(c.Request.Context(), "panic", "error", fmt.Sprint(cause), "stack", string(debug.Stack()))
	if c.Writer.Written() {
		c.Abort()
		return
	}
	abort(c, internal, "an unexpected error; the log has it under this trace_id")
}

func (s *server) limitHeaders(c *gin.Context) {
	size := len(c.Request.RequestURI)
	for name, values := range c.Request.Header {
		for _, v := range values {
			size += len(name) + len(v) + 4 // ": " and CRLF
		}
	}
	if size > maxHeaderBytes {
		abort(c, headersTooLarge, fmt.Sprintf("at most %d bytes", maxHeaderBytes))
	}
}
