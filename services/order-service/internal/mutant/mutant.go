//go:build prove_test

// Package mutant puts known bugs into the checkout, to prove that the experiment which looks for
// such bugs finds them. Only test builds have it.
package mutant

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"prove/order-service/internal/order"
)

// mutants are made by changing the ports of a service.
var mutants = map[string]func(*order.Service){
	// Each charge has a key of its own, so that a repeated one is another charge.
	"charge-without-key": func(s *order.Service) {
		s.Payments = charges{s.Payments, func(order.Charge) bool { return true }}
	},
	// So has each charge after the first, which a worker makes.
	"retry-with-new-key": func(s *order.Service) {
		claimed := &seen{}
		s.Store = claims{s.Store, claimed}
		s.Payments = charges{s.Payments, func(c order.Charge) bool { return claimed.has(c.OrderID) }}
	},
	// An order is answered as confirmed and not recorded as such.
	"ack-before-commit": func(s *order.Service) {
		inner := s.Store
		s.Store = saves{inner, func(ctx context.Context, o *order.Order, a *order.Answer) error {
			if o.Status == order.Confirmed {
				return nil
			}
			return inner.Save(ctx, o, a)
		}}
	},
	// The stock of a confirmed order is given back.
	"release-after-commit": func(s *order.Service) {
		inner, stock := s.Store, s.Stock
		s.Store = saves{inner, func(ctx context.Context, o *order.Order, a *order.Answer) error {
			err := inner.Save(ctx, o, a)
			if err == nil && o.Status == order.Confirmed {
				err = stock.Release(ctx, o.ID)
			}
			return err
		}}
	},
	// A payment counts as cancelled without anybody being asked.
	"lost-refund": func(s *order.Service) { s.Payments = noRefunds{s.Payments} },
	// A worker goes on with an order as it was when it was made, whatever was recorded since.
	"stale-read": func(s *order.Service) { s.Store = staleReads{blindSaves{s.Store}} },
	// A worker does not mark what it takes up, so that others work on it, too; versions would stop
	// them, so they are ignored.
	"double-recovery": func(s *order.Service) { s.Store = sharedClaims{blindSaves{s.Store}} },
	// Nothing is done about goods that are gone when a payment comes late. (Set RESERVATION_TTL_S low.)
	"forgotten-extend": func(s *order.Service) { s.Stock = carefree{s.Stock} },
	// A repeated key makes another order.
	"key-forgotten": func(s *order.Service) { s.Store = forgetful{s.Store} },
}

// Apply makes the service the named mutant; "" leaves it as it is.
func Apply(name string, s *order.Service) error {
	if name == "" {
		return nil
	}
	mutate, ok := mutants[name]
	if !ok {
		return fmt.Errorf("PROVE_MUTANT: Input should be one of %s (got '%s')",
			strings.Join(slices.Sorted(maps.Keys(mutants)), ", "), name)
	}
	mutate(s)
	return nil
}

// seen is a set of order ids.
type seen struct{ ids sync.Map }

func (s *seen) has(id string) bool { _, ok := s.ids.Load(id); return ok }

// charges get a random key where other says so.
type charges struct {
	order.Payments
	other func(order.Charge) bool
}

func (p charges) Charge(ctx context.Context, c order.Charge, wait time.Duration) (order.Payment, error) {
	if p.other(c) {
		c.Key = uuid.NewString()
	}
	return p.Payments.Charge(ctx, c, wait)
}

// claims notes which orders were claimed.
type claims struct {
	order.Store
	claimed *seen
}

func (s claims) Claim(ctx context.Context, worker string, now, horizon time.Time, limit int) ([]*order.Order, error) {
	orders, err := s.Store.Claim(ctx, worker, now, horizon, limit)
	for _, o := range orders {
		s.claimed.ids.Store(o.ID, nil)
	}
	return orders, err
}

type saves struct {
	order.Store
	save func(context.Context, *order.Order, *order.Answer) error
}

func (s saves) Save(ctx context.Context, o *order.Order, a *order.Answer) error {
	return s.save(ctx, o, a)
}

type noRefunds struct{ order.Payments }

func (noRefunds) Cancel(context.Context, order.Charge, time.Duration) (bool, error) { return true, nil }

// blindSaves overwrites whatever was recorded meanwhile.
type blindSaves struct{ order.Store }

func (s blindSaves) Save(ctx context.Context, o *order.Order, a *order.Answer) error {
	for {
		err := s.Store.Save(ctx, o, a)
		if !errors.Is(err, order.ErrConflict) {
			return err
		}
		current, err := s.Get(ctx, o.ID)
		if err != nil {
			return err
		}
		o.Version = current.Version
	}
}

type staleReads struct{ order.Store }

func (s staleReads) Claim(ctx context.Context, worker string, now, horizon time.Time, limit int) ([]*order.Order, error) {
	orders, err := s.Store.Claim(ctx, worker, now, horizon, limit)
	for _, o := range orders {
		o.Status, o.Step, o.Failure = order.Pending, order.StepReserve, nil
	}
	return orders, err
}

// sharedClaims hands out every unfinished order, also to others and again and again.
type sharedClaims struct{ order.Store }

func (s sharedClaims) Claim(ctx context.Context, _ string, now, _ time.Time, limit int) ([]*order.Order, error) {
	// To a worker that is always another one, and with a horizon that no time is within.
	return s.Store.Claim(ctx, uuid.NewString(), now, now.Add(-time.Hour), limit)
}

type carefree struct{ order.Stock }

func (carefree) Extend(context.Context, string) error { return nil }

func (s carefree) Commit(ctx context.Context, orderID string) error {
	if err := s.Stock.Commit(ctx, orderID); !errors.Is(err, order.ErrGone) {
		return err
	}
	return nil
}

type forgetful struct{ order.Store }

func (s forgetful) Create(ctx context.Context, o *order.Order, fingerprint []byte, keysSince time.Time) (*order.Prior, error) {
	prior, err := s.Store.Create(ctx, o, fingerprint, keysSince)
	for prior != nil && err == nil {
		o.Key = uuid.NewString()
		prior, err = s.Store.Create(ctx, o, fingerprint, keysSince)
	}
	return prior, err
}
