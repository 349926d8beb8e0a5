package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/trace"

	"prove/order-service/internal/order"
	"prove/order-service/internal/telemetry"
)

const problemType = "application/problem+json"

// Problem is an RFC 9457 answer with this service's extensions.
type Problem struct {
	Type      string       `json:"type" example:"/problems/stock-short" doc:"Relative URI that tells the kinds of problems apart"`
	Title     string       `json:"title"`
	Status    int          `json:"status" minimum:"400" maximum:"599"`
	Detail    string       `json:"detail,omitempty"`
	Instance  string       `json:"instance,omitempty" doc:"Path of the request"`
	TraceID   string       `json:"trace_id,omitempty"`
	RequestID string       `json:"request_id,omitempty"`
	Errors    []FieldError `json:"errors,omitempty"`
	OrderID   string       `json:"order_id,omitempty"`
	SKU       string       `json:"sku,omitempty"`
	Available *int64       `json:"available,omitempty"`
	Reason    string       `json:"reason,omitempty"`
	Total     *int64       `json:"total_minor,omitempty" doc:"What the goods cost, where that is not what was expected"`

	retryAfter int
}

// FieldError says what is wrong with one part of a request.
type FieldError struct {
	Loc string `json:"loc" example:"body.lines[0].quantity"`
	Msg string `json:"msg"`
}

// Error implements error.
func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemType }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header {
	if p.retryAfter == 0 {
		return nil
	}
	return http.Header{"Retry-After": {strconv.Itoa(p.retryAfter)}}
}

// kind is one sort of problem. retryAfter is in seconds.
type kind struct {
	status     int
	slug       string
	title      string
	retryAfter int
}

var (
	malformed       = kind{400, "malformed", "The request cannot be read", 0}
	keyMissing      = kind{400, "key-missing", "The Idempotency-Key header is missing", 0}
	badCursor       = kind{422, "validation", "The cursor is not one this service gave out", 0}
	unauthorized    = kind{401, "unauthorized", "The admin token is missing or wrong", 0}
	notFound        = kind{404, "not-found", "There is no such resource", 0}
	methodNot       = kind{405, "method-not-allowed", "The resource does not support this method", 0}
	timeout         = kind{408, "request-timeout", "The request took too long to arrive", 0}
	tooLarge        = kind{413, "body-too-large", "The request body is too large", 0}
	unsupported     = kind{415, "unsupported-media-type", "The request body must be application/json", 0}
	validation      = kind{422, "validation", "The request is not valid", 0}
	headersTooLarge = kind{431, "headers-too-large", "The request headers are too large", 0}
	internal        = kind{500, "internal", "The service failed", 0}
	orderCancelled  = kind{409, "order-cancelled", "The order was cancelled", 0}
	unavailable     = kind{503, "unavailable", "The order cannot be taken right now", 2}
	leasesUnwritten = kind{503, "unavailable", "The faults cannot be changed right now", 0}
)

// errorKinds is the one table from errors to HTTP; what is not in it is unavailable.
var errorKinds = []struct {
	err  error
	kind kind
}{
	{errOverloaded, kind{503, "overloaded", "The shop is too busy to take the order", 1}},
	{order.ErrNotBegun, unavailable},
	{order.ErrNotFound, notFound},
	{order.ErrKeyReused, kind{422, "key-reused", "The Idempotency-Key was used for another request", 0}},
	{order.ErrKeyInFlight, kind{409, "key-in-flight", "A request with this Idempotency-Key is being processed", 1}},
	{order.ErrNotCancellable, kind{409, "not-cancellable", "The order cannot be cancelled", 0}},
	{order.ErrConflict, kind{409, "conflict", "The order is being changed by another request", 1}},
}

// failureKinds is its counterpart for rejected orders.
var failureKinds = map[order.Code]kind{
	order.Declined:         {402, "declined", "The payment was declined", 0},
	order.StockShort:       {409, "stock-short", "There is not enough stock", 0},
	order.PriceChanged:     {409, "price-changed", "The goods cost something else than expected", 0},
	order.PaymentTimeout:   {402, "payment-timeout", "The payment's outcome could not be learned in time", 0},
	order.ReservationGone:  {409, "reservation-gone", "The stock was sold to somebody else", 0},
	order.UnknownSKU:       {422, "unknown-sku", "There is no such product", 0},
	order.CurrencyMismatch: {422, "currency-mismatch", "The catalogue has another currency", 0},
	order.UnknownMethod:    {422, "unknown-payment-method", "The payment method was refused", 0},
	order.Invalid:          {422, "invalid-order", "The catalogue refused the order", 0},
	order.Unavailable:      unavailable,
}

// statusKinds gives the problems that huma and gin find their kind.
var statusKinds = map[int]kind{
	400: malformed, 404: notFound, 405: methodNot, 408: timeout, 413: tooLarge, 415: unsupported,
	422: validation, 431: headersTooLarge, 500: internal,
}

func (k kind) problem(ctx context.Context, instance, detail string) *Problem {
	p := &Problem{
		Type: "/problems/" + k.slug, Title: k.title, Status: k.status, Detail: detail,
		Instance: instance, RequestID: telemetry.RequestID(ctx), retryAfter: k.retryAfter,
	}
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		p.TraceID = sc.TraceID().String()
	}
	return p
}

// fromError looks err up in the table.
func fromError(ctx context.Context, instance string, err error) *Problem {
	for _, e := range errorKinds {
		if errors.Is(err, e.err) {
			return e.kind.problem(ctx, instance, err.Error())
		}
	}
	return unavailable.problem(ctx, instance, "the database did not take the request; try again")
}

func fromFailure(ctx context.Context, instance string, o *order.Order) *Problem {
	f := o.Failure
	k, ok := failureKinds[f.Code]
	if !ok {
		k = internal
	}
	p := k.problem(ctx, instance, f.Reason)
	p.about(o)
	p.SKU, p.Available, p.Total = f.SKU, f.Available, f.Total
	if f.Code == order.Declined {
		p.Reason, p.Detail = f.Reason, "the payment was declined: "+f.Reason
	}
	return p
}

// about ties the problem to the order and the trace of its checkout.
func (p *Problem) about(o *order.Order) {
	p.OrderID = o.ID
	if id := traceID(o); id != "" {
		p.TraceID = id
	}
}

// fromHuma makes problems of what huma finds wrong with a request.
func fromHuma(ctx huma.Context, status int, message string, errs ...error) huma.StatusError {
	background, instance := context.Background(), ""
	if ctx != nil {
		u := ctx.URL()
		background, instance = ctx.Context(), u.Path
	}
	// huma takes a body that ends early for its own failure; it is the client's.
	if status == http.StatusInternalServerError && message == "cannot read request body" {
		status = http.StatusBadRequest
	}
	k, ok := statusKinds[status]
	if !ok {
		k = kind{status: status, slug: "http-" + strconv.Itoa(status), title: http.StatusText(status)}
	}
	p := k.problem(background, instance, message)
	for _, err := range errs {
		var d huma.ErrorDetailer
		if errors.As(err, &d) {
			p.Errors = append(p.Errors, FieldError{Loc: d.ErrorDetail().Location, Msg: d.ErrorDetail().Message})
		} else if err != nil && k != internal { // an internal error is for the log only
			p.Errors = append(p.Errors, FieldError{Msg: err.Error()})
		}
	}
	return p
}

// abort answers a request outside of huma.
func abort(c *gin.Context, k kind, detail string) {
	writeProblem(c, k.problem(c.Request.Context(), c.Request.URL.Path, detail))
}

func writeProblem(c *gin.Context, p *Problem) {
	for name, values := range p.GetHeaders() {
		c.Writer.Header()[name] = values
	}
	raw, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and integers always marshal
	}
	c.Abort()
	c.Data(p.Status, problemType, raw)
}
