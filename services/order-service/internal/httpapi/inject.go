package httpapi

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"prove/order-service/internal/fault"
)

// factsTimeout is how long a body may take to arrive that a fault wants to look at.
const factsTimeout = 5 * time.Second

// faults does to a request what the faults in force want, before and after its handler.
func (s *server) faults(c *gin.Context) {
	route := template(c.FullPath())
	if exempt[route] {
		return
	}
	ctx, hit := c.Request.Context(), false
	answer := s.Faults.Apply(ctx, fault.Request{
		Method: c.Request.Method, Route: route, Facts: func() fault.Facts { return s.facts(c) },
	}, func(l *fault.Lease) {
		hit = true
		trace.SpanFromContext(ctx).SetAttributes(
			attribute.String("prove.fault.name", l.Name), attribute.String("prove.fault.type", l.Type))
	})
	if !hit {
		return
	}
	// Faults may take longer than any answer does.
	_ = http.NewResponseController(c.Writer).SetWriteDeadline(time.Time{})
	work := func() {
		switch {
		case answer.Failed != nil:
			fail(c, answer.Failed)
		case ctx.Err() != nil:
			abort(c, unavailable, "the caller's time ran out before the work began")
		default:
			c.Next()
		}
	}
	if answer.Slow == nil {
		work()
		return
	}
	s.drip(c, answer.Slow, work)
}

func fail(c *gin.Context, l *fault.Lease) {
	status := l.Params.Status
	if status == 0 {
		status = http.StatusServiceUnavailable
	}
	if l.Params.Body != nil {
		c.Abort()
		c.Data(status, "text/plain; charset=utf-8", []byte(*l.Params.Body))
		return
	}
	abort(c, kind{status: status, slug: "injected", title: "Injected fault"}, "the fault "+l.Name+" is in force")
}

// facts tells what a request is about: of a checkout the body says it, which its handler reads again.
func (s *server) facts(c *gin.Context) fault.Facts {
	f := fault.Facts{Customer: c.Query("customer_id"), Key: c.GetHeader("Idempotency-Key")}
	if f.Key == "" {
		f.Key = c.Request.URL.RequestURI()
	}
	if c.Request.Method != http.MethodPost || c.FullPath() != ordersPath {
		return f
	}
	control := http.NewResponseController(c.Writer)
	_ = control.SetReadDeadline(time.Now().Add(factsTimeout))
	raw, err := io.ReadAll(io.LimitReader(c.Request.Body, s.MaxBodyBytes+1))
	_ = control.SetReadDeadline(time.Time{})
	c.Request.Body = again{io.MultiReader(bytes.NewReader(raw), failing{err}, c.Request.Body), c.Request.Body}
	var body struct {
		CustomerID string `json:"customer_id"`
		Lines      []struct {
			SKU string `json:"sku"`
		} `json:"lines"`
	}
	if json.Unmarshal(raw, &body) != nil {
		return f // what is wrong with it the handler tells
	}
	f.Customer = body.CustomerID
	for _, line := range body.Lines {
		f.SKUs = append(f.SKUs, line.SKU)
	}
	return f
}

// again is a body that has been read, to be read again.
type again struct {
	io.Reader
	io.Closer
}

// failing is the end of what could be read.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

// drip keeps what work writes, and then sends it slowly.
func (s *server) drip(c *gin.Context, lease *fault.Lease, work func()) {
	to, kept := c.Writer, &keeping{ResponseWriter: c.Writer}
	func() {
		c.Writer = kept
		defer func() { c.Writer = to }()
		work()
	}()
	to.Header().Set("Content-Length", strconv.Itoa(kept.body.Len()))
	// It ends early when the client hung up; nobody is left to be told.
	_ = s.Faults.Pace(c.Request.Context(), lease, kept.body.Bytes(), func(part []byte) error {
		_, err := to.Write(part)
		to.Flush()
		return err
	})
}

// keeping is a writer that keeps the body.
type keeping struct {
	gin.ResponseWriter
	body bytes.Buffer
}

func (k *keeping) Write(p []byte) (int, error)       { return k.body.Write(p) }
func (k *keeping) WriteString(s string) (int, error) { return k.body.WriteString(s) }
func (k *keeping) Written() bool                     { return k.body.Len() > 0 }
