package order

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Reservation is stock held for an order, priced by the catalogue.
type Reservation struct {
	Currency   string
	TotalMinor int64
	Lines      []Line
}

// ShortError: a product has less stock than was asked for.
type ShortError struct {
	SKU       string
	Available int64
}

func (e *ShortError) Error() string {
	return fmt.Sprintf("only %d of %s in stock", e.Available, e.SKU)
}

// UnknownSKUError: the catalogue has no such product.
type UnknownSKUError struct{ SKU string }

func (e *UnknownSKUError) Error() string { return "no product " + e.SKU }

// Errors of the peers. Any other error leaves open whether the peer did what it was asked.
var (
	// ErrNotSent: the request never reached the peer, so nothing happened there.
	ErrNotSent = errors.New("the request was not sent")
	// ErrGone: the reservation was released, or lapsed and its stock went to somebody else.
	ErrGone = errors.New("the reserved stock is gone")
	// ErrRefused: the peer understood the request and will never accept one like it.
	ErrRefused = errors.New("the request was refused")
	// ErrRepeated comes with a refusal: an earlier attempt may be under way, and end otherwise.
	ErrRepeated = errors.New("an earlier attempt may be under way")
)

// Stock is the Product Service. Every call may be repeated safely.
type Stock interface {
	// Reserve may return *ShortError, *UnknownSKUError, ErrRefused or ErrGone (released before):
	// nothing is held then, unless it is ErrRepeated, too.
	Reserve(ctx context.Context, orderID string, lines []Line) (Reservation, error)
	// Extend keeps a reservation from lapsing; ErrGone when its stock is taken.
	Extend(ctx context.Context, orderID string) error
	// Commit makes a reservation permanent; ErrGone when its stock is taken.
	Commit(ctx context.Context, orderID string) error
	// Release gives the stock back for good: a Reserve, Extend or Commit that comes later is ErrGone.
	Release(ctx context.Context, orderID string) error
}

// Charge is what a customer is asked to pay. Key is its idempotency key.
type Charge struct {
	Key         string
	OrderID     string
	AmountMinor int64
	Currency    string
	Method      string
}

// Payment is what the Payment Service knows of a charge.
type Payment struct {
	ID       string
	Captured bool
	Declined bool // neither captured nor declined: the acquirer has not answered yet
	Reason   string
}

// Payments is the Payment Service. Every call may be repeated safely.
type Payments interface {
	// Charge may return ErrNotSent or ErrRefused: nothing is charged then. The answer may take as
	// long as wait.
	Charge(ctx context.Context, c Charge, wait time.Duration) (Payment, error)
	// Cancel makes a charge not be, whatever became of it, and for good. It tells whether that is
	// done; false means that it is under way. ErrRefused: there never can be such a charge.
	Cancel(ctx context.Context, c Charge, wait time.Duration) (done bool, err error)
}

// Answer is the response to a checkout, kept to the byte for whoever repeats the request.
type Answer struct {
	Status int // HTTP status
	Body   []byte
	Final  bool // an answer that is not final is never kept: repeating may end otherwise
}

// Prior is what the store knows of an idempotency key that was used before.
type Prior struct {
	Order  *Order
	Answer *Answer // nil while the order has no final answer
}

// State is one that an order was recorded in: the step was about to be taken from then on.
type State struct {
	At     time.Time
	Status Status
	Step   Step
}

// Backlog is what there is of unfinished orders of one status.
type Backlog struct {
	Orders int64
	Oldest time.Time // when the oldest of them was made
}

// Store keeps orders. Every method is one transaction: a context that ends does not end a write.
// After an error other than ErrConflict a write may have been made all the same.
type Store interface {
	// Create records the order and claims its key, or returns what the key was used for. Keys
	// older than keysSince are free again. ErrKeyReused when fingerprint differs.
	Create(ctx context.Context, o *Order, fingerprint []byte, keysSince time.Time) (*Prior, error)
	// Known returns what a key was used for, as Create does, and claims nothing; nil: it is free.
	Known(ctx context.Context, customerID, key string, fingerprint []byte, keysSince time.Time) (*Prior, error)
	// Save records the order's state if nobody else did since it was read (else ErrConflict) and
	// raises its version. A final answer is kept under the order's key, another one frees the key.
	Save(ctx context.Context, o *Order, answer *Answer) error
	Get(ctx context.Context, id string) (*Order, error)
	// Prior returns an order with the answer that was kept for it.
	Prior(ctx context.Context, id string) (*Prior, error)
	// States returns the states an order was recorded in, oldest first.
	States(ctx context.Context, id string) ([]State, error)
	// List returns a customer's orders, newest first, that are older than the order before ("").
	List(ctx context.Context, customerID, before string, limit int) ([]*Order, error)
	// Beat records that the worker lives at least until the given time.
	Beat(ctx context.Context, worker string, until time.Time) error
	// Retire records that the worker lives no more: what it owns may be claimed.
	Retire(ctx context.Context, worker string) error
	// Claim makes the worker the owner of up to limit orders that are put off and due, or whose
	// owner is not alive, longest due first. A step that was begun there counts as an attempt.
	// Times beyond horizon are nobody's: they come from a clock that was set back since.
	Claim(ctx context.Context, worker string, now, horizon time.Time, limit int) ([]*Order, error)
	// ForgetKeys frees up to limit answered keys from before the given time, and forgets the
	// workers that died before it.
	ForgetKeys(ctx context.Context, before time.Time, limit int) (int64, error)
}

// Observer counts how orders fare.
type Observer interface {
	Outcome(ctx context.Context, outcome string, o *Order)
	// PutOff: the order's step did not come to an end and will be tried again.
	PutOff(ctx context.Context, o *Order)
	// Recovered: an order that was put off, or left by its process, is finished after d.
	Recovered(ctx context.Context, d time.Duration)
}
