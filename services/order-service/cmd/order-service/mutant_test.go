//go:build prove_test

package main

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"prove/order-service/internal/mutant"
	"prove/order-service/internal/order"
)

// Each mutant does the harm that the experiment has to find.
func TestMutants(t *testing.T) {
	cancel := func(s *shop) {
		a := s.checkout("k", "tok_approve")
		s.want(a, 201, "")
		s.send("POST", orders+"/"+a.body.ID+"/cancel", "")
		s.eventually("it is cancelled", func() bool { return !s.unfinished() })
		if s.peers.Payments("captured") != 1 {
			s.Error("the money came back")
		}
	}
	for name, harm := range map[string]func(*shop){
		"charge-without-key": cancel,
		"lost-refund":        cancel,
		"retry-with-new-key": func(s *shop) {
			s.want(s.checkout("k", "tok_slow"), 202, "")
			s.eventually("a second charge", func() bool { return s.peers.Payments("pending") > 1 })
			s.peers.Settle("captured", "")
		},
		"ack-before-commit": func(s *shop) {
			a := s.checkout("k", "tok_approve")
			s.want(a, 201, "")
			if got := s.send("GET", orders+"/"+a.body.ID, ""); got.body.Status != "paid" {
				s.Errorf("it is recorded: %s", got.raw)
			}
		},
		"release-after-commit": func(s *shop) {
			s.want(s.checkout("k", "tok_approve"), 201, "")
			if s.peers.Stock("A") != 100 {
				s.Errorf("%d left in stock", s.peers.Stock("A"))
			}
		},
		"key-forgotten": func(s *shop) {
			if a, b := s.checkout("k", "tok_approve"), s.checkout("k", "tok_approve"); a.body.ID == b.body.ID {
				s.Error("one order")
			}
		},
		"forgotten-extend": func(s *shop) {
			a := s.checkout("k", "tok_slow")
			s.want(a, 202, "")
			s.peers.Lapse()
			s.peers.Settle("captured", "")
			s.until(a.body.ID, "confirmed")
			if s.peers.Reservation(a.body.ID) != "gone" {
				s.Error("the goods were there")
			}
		},
		"stale-read": func(s *shop) {
			down := s.fail("/commit", 500)
			a := s.checkout("k", "tok_approve")
			s.want(a, 202, "")
			down.Store(false)
			if h := s.until(a.body.ID, "confirmed").history(); !strings.Contains(h, "paid/commit reserved/charge") {
				s.Errorf("history is %s", h)
			}
		},
		"double-recovery": func(s *shop) {
			var mu sync.Mutex
			at, most := 0, 0
			both, once := make(chan struct{}), sync.Once{}
			s.peers.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/payments") {
					return false
				}
				mu.Lock()
				at++
				most = max(most, at)
				if at == 2 {
					once.Do(func() { close(both) })
				}
				mu.Unlock()
				select {
				case <-both:
				case <-r.Context().Done():
				}
				mu.Lock()
				at--
				mu.Unlock()
				return false
			})
			s.checkout("k", "tok_approve")
			mu.Lock()
			defer mu.Unlock()
			if most < 2 {
				s.Error("nobody else worked on it")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShopWith(t, func(o *order.Service) {
				if err := mutant.Apply(name, o); err != nil {
					t.Fatal(err)
				}
			})
			harm(s)
		})
	}
	if err := mutant.Apply("no-such", &order.Service{}); err == nil {
		t.Error("an unknown mutant was accepted")
	}
}
