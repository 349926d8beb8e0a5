// Package order is the domain: what an order is, which states it may take and how a checkout is
// carried through them. It knows neither HTTP nor SQL.
package order

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Status is what a customer is told about an order.
type Status string

// An order runs pending → reserved → paid → confirmed. It leaves that path as rejected, or as
// cancelled, which is its customer's choice even after it was confirmed.
const (
	Pending   Status = "pending"
	Reserved  Status = "reserved"
	Paid      Status = "paid"
	Confirmed Status = "confirmed"
	Rejected  Status = "rejected"
	Cancelled Status = "cancelled"
)

var transitions = map[Status][]Status{
	Pending:   {Reserved, Rejected, Cancelled},
	Reserved:  {Paid, Rejected, Cancelled},
	Paid:      {Confirmed, Rejected, Cancelled},
	Confirmed: {Cancelled},
}

// Step is the work that is outstanding. It is recorded before it is taken, so that whoever finds
// the order later knows what may have happened; StepNone means that nothing is left to do.
type Step string

// The first three carry an order forward. The last two undo them, whatever became of them, and for
// good: a charge or a reservation that arrives later finds itself refused.
const (
	StepNone          Step = ""
	StepReserve       Step = "reserve"
	StepCharge        Step = "charge"
	StepCommit        Step = "commit"
	StepCancelPayment Step = "cancel-payment"
	StepRelease       Step = "release"
)

// Line is one position of an order; Name and PriceMinor come from the catalogue, never the client.
type Line struct {
	SKU        string `json:"sku"`
	Name       string `json:"name"`
	Quantity   int64  `json:"quantity"`
	PriceMinor int64  `json:"price_minor"`
}

// Code says why an order was rejected.
type Code string

// The codes are stored with the order; httpapi maps each to an HTTP answer.
const (
	Declined         Code = "declined"
	StockShort       Code = "stock-short"
	UnknownSKU       Code = "unknown-sku"
	CurrencyMismatch Code = "currency-mismatch"
	UnknownMethod    Code = "unknown-payment-method"
	Invalid          Code = "invalid-order"
	PaymentTimeout   Code = "payment-timeout"
	ReservationGone  Code = "reservation-gone"
	PriceChanged     Code = "price-changed"
	Unavailable      Code = "unavailable"
)

// Failure is the reason of a rejection with the facts a customer can act upon.
type Failure struct {
	Code      Code   `json:"code"`
	Reason    string `json:"reason,omitempty"`
	SKU       string `json:"sku,omitempty"`
	Available *int64 `json:"available,omitempty"`
	Total     *int64 `json:"total_minor,omitempty"` // what the goods cost, not what was expected
}

// Order is one customer's purchase. Amounts are minor units of Currency, times are UTC.
type Order struct {
	ID            string
	CustomerID    string
	Key           string // the Idempotency-Key it was made under
	Status        Status
	Step          Step
	StepSince     time.Time // when Step became the one to take
	Attempts      int       // how often Step was begun without a known end
	Owner         string    // the process that takes the steps; "": any, from DueAt on
	DueAt         time.Time
	PutOffAt      time.Time // when it was first put off or left by its process; zero: never
	Version       int64     // grows by one with every save; a save from an older one is refused
	PaymentMethod string
	Currency      string
	Lines         []Line
	TotalMinor    int64
	ExpectedTotal *int64 // what the customer was shown; nil: not told
	PaymentID     string
	Failure       *Failure
	TraceParent   string // W3C traceparent of the checkout
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// Request is what a customer asks for. Key and the fields of the order decide whether a repeated
// request is the same one.
type Request struct {
	CustomerID    string
	Key           string
	Lines         []Line
	PaymentMethod string
	Currency      string // optional: the currency the customer expects
	// ExpectedTotal is optional: what the customer was shown. The goods are not sold for anything else.
	ExpectedTotal *int64 `json:",omitempty"`
}

// Errors of the domain that are not a rejection of an order.
var (
	ErrNotFound       = errors.New("no such order")
	ErrKeyReused      = errors.New("the idempotency key was used with another request")
	ErrKeyInFlight    = errors.New("a request with this idempotency key is being processed")
	ErrNotCancellable = errors.New("the order cannot be cancelled in its state")
	ErrConflict       = errors.New("the order was changed by someone else")
	ErrNotBegun       = errors.New("nothing was recorded")
	ErrTransition     = errors.New("transition not allowed")
)

func newOrder(req Request, now time.Time) (*Order, error) {
	id, err := uuid.NewV7() // time-ordered: inserts append, and a list by id is a list by age
	if err != nil {
		return nil, fmt.Errorf("making an order id: %w", err)
	}
	return &Order{
		ID: id.String(), CustomerID: req.CustomerID, Key: req.Key,
		Status: Pending, Step: StepReserve, StepSince: now, DueAt: now,
		PaymentMethod: req.PaymentMethod, Currency: req.Currency, Lines: req.Lines,
		ExpectedTotal: req.ExpectedTotal,
		CreatedAt:     now, UpdatedAt: now,
	}, nil
}

// Settled tells whether the customer's answer is final.
func (o *Order) Settled() bool {
	return o.Status == Confirmed || o.Status == Rejected || o.Status == Cancelled
}

// charge is what the order's customer is asked to pay, and the same charge when it is cancelled.
func (o *Order) charge() Charge {
	return Charge{Key: o.ID, OrderID: o.ID, AmountMinor: o.TotalMinor, Currency: o.Currency,
		Method: o.PaymentMethod}
}

func (o *Order) move(to Status, next Step, now time.Time) error {
	for _, allowed := range transitions[o.Status] {
		if allowed == to {
			o.Status = to
			o.next(next, now)
			return nil
		}
	}
	return fmt.Errorf("%w: %s to %s", ErrTransition, o.Status, to)
}

func (o *Order) next(step Step, now time.Time) {
	o.Step, o.StepSince, o.Attempts, o.UpdatedAt = step, now, 0, now
}

// reserved takes the catalogue's prices over.
func (o *Order) reserved(r Reservation, now time.Time) error {
	o.Lines, o.TotalMinor, o.Currency = r.Lines, r.TotalMinor, r.Currency
	return o.move(Reserved, StepCharge, now)
}

func (o *Order) charged(paymentID string, now time.Time) error {
	o.PaymentID = paymentID
	return o.move(Paid, StepCommit, now)
}

func (o *Order) committed(now time.Time) error { return o.move(Confirmed, StepNone, now) }

// reject ends the order; undo is the first step of what has to be taken back.
func (o *Order) reject(f Failure, undo Step, now time.Time) error {
	o.Failure = &f
	return o.move(Rejected, undo, now)
}

func (o *Order) cancel(now time.Time) error { return o.move(Cancelled, o.undo(), now) }

// undo is the first step that takes back whatever may have been done. Before an order is recorded
// as reserved nobody charges it, and its amount is not known.
func (o *Order) undo() Step {
	if o.Status == Pending || o.TotalMinor == 0 {
		return StepRelease
	}
	return StepCancelPayment
}

// putOff leaves the order to whichever process takes it up first, from due on.
func (o *Order) putOff(now, due time.Time) {
	o.Attempts++
	o.Owner, o.DueAt, o.UpdatedAt = "", due, now
	if o.PutOffAt.IsZero() {
		o.PutOffAt = now
	}
}
