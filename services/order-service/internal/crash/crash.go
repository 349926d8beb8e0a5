//go:build prove_test

// Package crash makes the process kill itself at named points, the way a power-cycled machine or the
// OOM killer would: no deferred function runs, nothing is flushed. Only test builds have it.
package crash

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"prove/order-service/internal/order"
)

// Points tells at which points a file in the directory kills the process. "" : at none.
type Points struct{ Dir string }

// Pass kills the process if the file <dir>/order.<point> exists and this process is the one that
// claims it, by renaming it: each file fires once.
func (p Points) Pass(point string) {
	if p.Dir == "" {
		return
	}
	name := filepath.Join(p.Dir, "order."+point)
	if os.Rename(name, fmt.Sprintf("%s.fired.%d", name, os.Getpid())) != nil {
		return // not armed, or another process was faster
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal arrives
}

// around passes the point before and after do.
func around[T any](p Points, point string, do func() (T, error)) (T, error) {
	p.Pass(point + ".before")
	v, err := do()
	p.Pass(point + ".after")
	return v, err
}

type none = struct{}

// Store has the points of an order.Store.
type Store struct {
	order.Store
	Points
}

// Create implements order.Store.
func (s Store) Create(ctx context.Context, o *order.Order, fingerprint []byte, keysSince time.Time) (*order.Prior, error) {
	return around(s.Points, "create", func() (*order.Prior, error) {
		return s.Store.Create(ctx, o, fingerprint, keysSince)
	})
}

// Save implements order.Store.
func (s Store) Save(ctx context.Context, o *order.Order, answer *order.Answer) error {
	point := "save-other"
	switch o.Status {
	case order.Reserved, order.Paid, order.Confirmed:
		point = "save-" + string(o.Status)
	}
	_, err := around(s.Points, point, func() (none, error) { return none{}, s.Store.Save(ctx, o, answer) })
	return err
}

// Claim implements order.Store. The point is passed only with an order in hand.
func (s Store) Claim(ctx context.Context, worker string, now, horizon time.Time, limit int) ([]*order.Order, error) {
	orders, err := s.Store.Claim(ctx, worker, now, horizon, limit)
	if len(orders) > 0 {
		s.Pass("claim.after")
	}
	return orders, err
}

// Stock has the points of an order.Stock.
type Stock struct {
	order.Stock
	Points
}

// Reserve implements order.Stock.
func (s Stock) Reserve(ctx context.Context, orderID string, lines []order.Line) (order.Reservation, error) {
	return around(s.Points, "reserve", func() (order.Reservation, error) {
		return s.Stock.Reserve(ctx, orderID, lines)
	})
}

// Commit implements order.Stock.
func (s Stock) Commit(ctx context.Context, orderID string) error {
	_, err := around(s.Points, "commit", func() (none, error) { return none{}, s.Stock.Commit(ctx, orderID) })
	return err
}

// Release implements order.Stock.
func (s Stock) Release(ctx context.Context, orderID string) error {
	_, err := around(s.Points, "release", func() (none, error) { return none{}, s.Stock.Release(ctx, orderID) })
	return err
}

// Payments has the points of an order.Payments.
type Payments struct {
	order.Payments
	Points
}

// Charge implements order.Payments.
func (p Payments) Charge(ctx context.Context, c order.Charge, wait time.Duration) (order.Payment, error) {
	return around(p.Points, "charge", func() (order.Payment, error) { return p.Payments.Charge(ctx, c, wait) })
}

// Cancel implements order.Payments.
func (p Payments) Cancel(ctx context.Context, c order.Charge, wait time.Duration) (bool, error) {
	return around(p.Points, "cancel-payment", func() (bool, error) { return p.Payments.Cancel(ctx, c, wait) })
}

// Answers passes answer.before when a POST is about to be answered.
func Answers(h http.Handler, p Points) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w = &answer{ResponseWriter: w, points: p}
		}
		h.ServeHTTP(w, r)
	})
}

type answer struct {
	http.ResponseWriter
	points Points
}

func (a *answer) WriteHeader(status int) {
	a.points.Pass("answer.before")
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is what http.ResponseController looks for.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
