package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"prove/order-service/internal/order"
)

const ordersPath = "/api/v1/orders"

// Order is an order as clients see it.
type Order struct {
	ID         string         `json:"id" format:"uuid"`
	Status     order.Status   `json:"status" enum:"pending,reserved,paid,confirmed,rejected,cancelled"`
	CustomerID string         `json:"customer_id"`
	Lines      []order.Line   `json:"lines" doc:"Names and prices are the catalogue's, once the stock is reserved" nullable:"false"`
	TotalMinor int64          `json:"total_minor" doc:"In minor units of the currency"`
	Currency   string         `json:"currency" doc:"ISO 4217; empty until the stock is reserved"`
	PaymentID  *string        `json:"payment_id"`
	TraceID    string         `json:"trace_id" doc:"Of the checkout; empty if it was not traced"`
	Failure    *order.Failure `json:"failure,omitempty" doc:"Why the order was rejected"`
	CreatedAt  time.Time      `json:"created_at"`
	UpdatedAt  time.Time      `json:"updated_at"`
}

func view(o *order.Order) Order {
	v := Order{
		ID: o.ID, Status: o.Status, CustomerID: o.CustomerID, Lines: o.Lines,
		TotalMinor: o.TotalMinor, Currency: o.Currency, TraceID: traceID(o), Failure: o.Failure,
		CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt,
	}
	if o.PaymentID != "" {
		v.PaymentID = &o.PaymentID
	}
	return v
}

// traceID is the second field of a traceparent (W3C Trace Context §3.2): 00-<32 hex>-…
func traceID(o *order.Order) string {
	if len(o.TraceParent) < 35 {
		return ""
	}
	return o.TraceParent[3:35]
}

// Render makes the answer to a checkout; it implements order.Service.Render.
func Render(ctx context.Context, o *order.Order) order.Answer {
	switch o.Status {
	case order.Rejected:
		p := fromFailure(ctx, ordersPath, o)
		return order.Answer{Status: p.Status, Body: marshal(p), Final: o.Failure.Code != order.Unavailable}
	case order.Confirmed:
		return order.Answer{Status: http.StatusCreated, Body: marshal(view(o)), Final: true}
	case order.Cancelled:
		p := orderCancelled.problem(ctx, ordersPath, "its customer cancelled it; whatever was charged is refunded")
		p.about(o)
		return order.Answer{Status: p.Status, Body: marshal(p), Final: true}
	}
	return order.Answer{Status: http.StatusAccepted, Body: marshal(view(o))}
}

func marshal(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // no type of this package can fail to marshal
	}
	return raw
}

type createInput struct {
	Key  string `header:"Idempotency-Key" minLength:"1" maxLength:"255" pattern:"^[!-~]+$" patternDescription:"printable ASCII without spaces" doc:"Chosen by the client, one per purchase; see draft-ietf-httpapi-idempotency-key-header"`
	Body struct {
		CustomerID    string      `json:"customer_id" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9._-]{1,64}$"`
		Lines         []inputLine `json:"lines" minItems:"1" maxItems:"500" nullable:"false"`
		PaymentMethod string      `json:"payment_method" pattern:"^tok_[a-z0-9_]{1,60}$" example:"tok_approve" doc:"A method token; never a card number"`
		Currency      string      `json:"currency,omitempty" nullable:"true" pattern:"^[A-Z]{3}$" doc:"If given, must be the catalogue's"`
		ExpectedTotal *int64      `json:"expected_total_minor,omitempty" nullable:"true" minimum:"0" maximum:"1000000000000000" doc:"What the customer was shown, in minor units; if given, the goods are not sold for anything else"`
	}
}

type inputLine struct {
	SKU      string `json:"sku" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$"`
	Quantity int64  `json:"quantity" minimum:"1" maximum:"10000"`
}

// answerOutput carries an answer to the byte.
type answerOutput struct {
	Status      int
	ContentType string `header:"Content-Type"`
	Location    string `header:"Location"`
	Replayed    string `header:"Idempotency-Replayed" doc:"true: the first answer to this key, again"`
	RetryAfter  string `header:"Retry-After"`
	Body        []byte
}

type orderOutput struct {
	Status int
	Body   Order
}

// State is one that an order was recorded in.
type State struct {
	At     time.Time    `json:"at"`
	Status order.Status `json:"status"`
	Step   order.Step   `json:"step" doc:"About to be taken from then on; empty: nothing was left to do"`
}

// OrderWithHistory is an order looked up by its id.
type OrderWithHistory struct {
	Order
	History []State `json:"history" doc:"Every state it was recorded in, oldest first" nullable:"false"`
}

type lookupOutput struct {
	Body OrderWithHistory
}

type pageOutput struct {
	Body struct {
		Items      []Order `json:"items" nullable:"false"`
		NextCursor *string `json:"next_cursor" doc:"null on the last page"`
	}
}

type idInput struct {
	ID string `path:"id" maxLength:"64" example:"01890a5d-ac96-774b-bcce-b302099a8057"`
}

type listInput struct {
	CustomerID string `query:"customer_id" required:"true" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9._-]{1,64}$"`
	Limit      int    `query:"limit" default:"20" minimum:"1" maximum:"100"`
	Cursor     string `query:"cursor" pattern:"^[A-Za-z0-9_-]{21}[AQgw]$" patternDescription:"the next_cursor of the page before" doc:"next_cursor of the page before"`
}

func (s *server) registerOrders() {
	schema := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Order](), true, "Order")
	answer := func(description string) *huma.Response {
		return &huma.Response{
			Description: description,
			Headers: map[string]*huma.Param{"Location": {Description: "Path of the order",
				Schema: &huma.Schema{Type: huma.TypeString}}},
			Content: map[string]*huma.MediaType{"application/json": {Schema: schema}},
		}
	}
	placed := func(description string) *huma.Response {
		r, id := answer(description), map[string]any{"id": "$response.body#/id"}
		r.Links = map[string]*huma.Link{
			"read":   {OperationID: "get-order", Parameters: id},
			"cancel": {OperationID: "cancel-order", Parameters: id},
		}
		return r
	}
	create := huma.Operation{
		OperationID: "create-order", Method: http.MethodPost, Path: ordersPath,
		Summary: "Check out", Tags: []string{"orders"}, DefaultStatus: http.StatusCreated,
		Description: "Reserves the stock, charges the payment and confirms the order. Repeating the " +
			"request with the same Idempotency-Key is safe: it never makes a second order.",
		MaxBodyBytes: s.MaxBodyBytes + 1, // huma refuses a body that reaches the limit
		// The deadline outlasts the reading: net/http would take it for a client that hung up.
		BodyReadTimeout: s.Orders.Timeout + 20*time.Second,
		Responses: map[string]*huma.Response{
			"201": placed("Confirmed"),
			"202": placed("Not settled yet: the outcome can be read at Location"),
		},
		Errors: []int{400, 402, 404, 408, 409, 413, 415, 431, 503},
	}
	huma.Register(s.api, create, s.create)
	huma.Register(s.api, huma.Operation{
		OperationID: "list-orders", Method: http.MethodGet, Path: ordersPath,
		Summary: "List a customer's orders, newest first", Tags: []string{"orders"},
		Errors: []int{422, 431, 503},
	}, s.list)
	huma.Register(s.api, huma.Operation{
		OperationID: "get-order", Method: http.MethodGet, Path: ordersPath + "/{id}",
		Summary: "Read an order", Tags: []string{"orders"}, Errors: []int{404, 431, 503},
	}, s.get)
	huma.Register(s.api, huma.Operation{
		OperationID: "cancel-order", Method: http.MethodPost, Path: ordersPath + "/{id}/cancel",
		Summary: "Cancel an order that is not rejected: refund the payment, put the stock back",
		Tags:    []string{"orders"}, Errors: []int{404, 409, 431, 503},
		Responses: map[string]*huma.Response{"202": answer("Cancelled; the refund is under way")},
	}, s.cancel)

	// Missing is 400 by the Idempotency-Key draft, not 422 as huma would have it: so huma is not
	// told that the header is required, but readers are.
	for _, p := range s.api.OpenAPI().Paths[ordersPath].Post.Parameters {
		p.Required = p.Required || p.Name == "Idempotency-Key"
	}
}

func (s *server) create(ctx context.Context, in *createInput) (*answerOutput, error) {
	if in.Key == "" {
		return nil, keyMissing.problem(ctx, ordersPath,
			"send an Idempotency-Key header: any unique string, the same one when you try again")
	}
	req := order.Request{
		CustomerID: in.Body.CustomerID, Key: in.Key, PaymentMethod: in.Body.PaymentMethod,
		Currency: in.Body.Currency, ExpectedTotal: in.Body.ExpectedTotal, Lines: make([]order.Line, len(in.Body.Lines)),
	}
	for i, l := range in.Body.Lines {
		req.Lines[i] = order.Line{SKU: l.SKU, Quantity: l.Quantity}
	}
	release, err := s.admit(ctx)
	if err != nil {
		return nil, s.problem(ctx, ordersPath, err)
	}
	defer release()
	result, err := s.Orders.Checkout(ctx, req)
	if errors.Is(err, order.ErrNotBegun) {
		s.Shed(ctx, "peer")
	}
	if err != nil {
		return nil, s.problem(ctx, ordersPath, err)
	}
	out := &answerOutput{Status: result.Answer.Status, ContentType: problemType, Body: result.Answer.Body}
	if out.Status < 300 {
		out.ContentType, out.Location = "application/json", ordersPath+"/"+result.OrderID
	}
	if result.Replayed {
		out.Replayed = "true"
	}
	if out.Status == unavailable.status {
		out.RetryAfter = strconv.Itoa(unavailable.retryAfter)
	}
	return out, nil
}

// leastTime is what a checkout needs at best; a customer with less left cannot be told its outcome.
const leastTime = 50 * time.Millisecond

// admitWait is how long a checkout may wait for its turn.
const admitWait = 250 * time.Millisecond

var errOverloaded = errors.New("nothing was done")

// admit keeps more checkouts from being worked on than are finished in time. Nothing is recorded of
// one that is not admitted.
func (s *server) admit(ctx context.Context) (release func(), err error) {
	wait := admitWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)-leastTime)
	}
	if wait < 0 {
		s.Shed(ctx, "deadline")
		return nil, fmt.Errorf("%w: the time left is too short for a checkout", errOverloaded)
	}
	if err := s.Admission.AcquirePermitWithMaxWait(ctx, wait); err != nil {
		s.Shed(ctx, "busy")
		return nil, fmt.Errorf("%w: too many checkouts at once", errOverloaded)
	}
	return s.Admission.ReleasePermit, nil
}

func (s *server) get(ctx context.Context, in *idInput) (*lookupOutput, error) {
	instance := ordersPath + "/" + in.ID
	id, err := parseID(in.ID)
	if err != nil {
		return nil, s.problem(ctx, instance, err)
	}
	o, err := s.Orders.Get(ctx, id)
	if err != nil {
		return nil, s.problem(ctx, instance, err)
	}
	states, err := s.Orders.States(ctx, id)
	if err != nil {
		return nil, s.problem(ctx, instance, err)
	}
	out := &lookupOutput{OrderWithHistory{Order: view(o), History: make([]State, len(states))}}
	for i, st := range states {
		out.Body.History[i] = State(st)
	}
	return out, nil
}

func (s *server) list(ctx context.Context, in *listInput) (*pageOutput, error) {
	before := ""
	if in.Cursor != "" {
		var ok bool
		if before, ok = decodeCursor(in.Cursor); !ok {
			return nil, badCursor.problem(ctx, ordersPath, "use the next_cursor of the page before, unchanged")
		}
	}
	orders, err := s.Orders.List(ctx, in.CustomerID, before, in.Limit+1) // one more tells if there are more
	if err != nil {
		return nil, s.problem(ctx, ordersPath, err)
	}
	out := &pageOutput{}
	if len(orders) > in.Limit {
		orders = orders[:in.Limit]
		next := encodeCursor(orders[in.Limit-1].ID)
		out.Body.NextCursor = &next
	}
	out.Body.Items = make([]Order, len(orders))
	for i, o := range orders {
		out.Body.Items[i] = view(o)
	}
	return out, nil
}

func (s *server) cancel(ctx context.Context, in *idInput) (*orderOutput, error) {
	instance := ordersPath + "/" + in.ID + "/cancel"
	id, err := parseID(in.ID)
	if err != nil {
		return nil, s.problem(ctx, instance, err)
	}
	o, err := s.Orders.Cancel(ctx, id)
	if err != nil {
		return nil, s.problem(ctx, instance, err)
	}
	out := &orderOutput{Status: http.StatusOK, Body: view(o)}
	if o.Step != order.StepNone {
		out.Status = http.StatusAccepted
	}
	return out, nil
}

// parseID spares the database ids that cannot be, and bytes it would choke on.
func parseID(id string) (string, error) {
	u, err := uuid.Parse(id)
	if err != nil || len(id) != 36 {
		return "", order.ErrNotFound
	}
	return u.String(), nil
}

// problem logs what the client is not told.
func (s *server) problem(ctx context.Context, instance string, err error) error {
	p := fromError(ctx, instance, err)
	if p.Status >= 500 {
		s.Log.ErrorContext(ctx, "request failed", "error", err.Error())
	}
	return p
}
