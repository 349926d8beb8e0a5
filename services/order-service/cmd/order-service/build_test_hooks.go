//go:build prove_test

package main

import (
	"net/http"
	"os"

	"prove/order-service/internal/crash"
	"prove/order-service/internal/mutant"
	"prove/order-service/internal/order"
)

// instrument puts a mutant into the service (PROVE_MUTANT), and crash points around what is left of
// it (PROVE_CRASH_DIR).
func instrument(s *order.Service, h http.Handler) (http.Handler, error) {
	if err := mutant.Apply(os.Getenv("PROVE_MUTANT"), s); err != nil {
		return nil, badSetup{err}
	}
	points := crash.Points{Dir: os.Getenv("PROVE_CRASH_DIR")}
	s.Store = crash.Store{Store: s.Store, Points: points}
	s.Stock = crash.Stock{Stock: s.Stock, Points: points}
	s.Payments = crash.Payments{Payments: s.Payments, Points: points}
	return crash.Answers(h, points), nil
}
