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
	// ErrGone: the reservation lapsed and its stock went to somebody else.
	ErrGone = errors.New("the reserved stock is gone")
	// ErrRefused: the peer understood the request and will never accept it.
	ErrRefused = errors.New("the request was refused")
)

// Stock is the Product Service. Every call may be repeated safely.
type Stock interface {
	// Reserve may return *ShortError or *UnknownSKUError: nothing is held then.
	Reserve(ctx context.Context, orderID string, lines []Line) (Reservation, error)
	// Extend keeps a reservation from lapsing; ErrGone when its stock is taken.
	Extend(ctx context.Context, orderID string) error
	// Commit makes a reservation permanent; ErrGone when its stock is taken.
	Commit(ctx context.Context, orderID string) error
	Release(ctx context.Context, orderID string) error
}

// Charge is what a customer is asked to pay. The order's id is its idempotency key.
type Charge struct {
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
	// Charge may return ErrNotSent or ErrRefused: nothing is charged then.
	Charge(ctx context.Context, c Charge) (Payment, error)
	// Refund tells whether the money is back; false means that it is under way.
	Refund(ctx context.Context, paymentID string) (bool, error)
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

// Store keeps orders. Every method is one transaction: a context that ends does not end a write.
type Store interface {
	// Create records the order and claims its key, or returns what the key was used for. Keys
	// older than keysSince are free again. ErrKeyReused when fingerprint differs.
	Create(ctx context.Context, o *Order, fingerprint []byte, keysSince time.Time) (*Prior, error)
	// Save records the order's state if nobody else did since it was read (else ErrConflict) and
	// raises its version. A final answer is kept under the order's key, another one frees the key.
	Save(ctx context.Context, o *Order, answer *Answer) error
	Get(ctx context.Context, id string) (*Order, error)
	// List returns a customer's orders, newest first, that are older than the order before ("").
	List(ctx context.Context, customerID, before string, limit int) ([]*Order, error)
	// Claim takes up to limit orders that are due, oldest first, makes them due at until, and counts
	// an attempt that was begun but never put off: its process may have died in it.
	Claim(ctx context.Context, now, until time.Time, limit int) ([]*Order, error)
	// OldestUnfinished is the creation time of the oldest order with a step left, or the zero time.
	OldestUnfinished(ctx context.Context) (time.Time, error)
	// ForgetKeys frees up to limit answered keys from before the given time.
	ForgetKeys(ctx context.Context, before time.Time, limit int) (int64, error)
}

// Observer counts how orders end.
type Observer interface {
	Outcome(ctx context.Context, outcome string, o *Order)
}
