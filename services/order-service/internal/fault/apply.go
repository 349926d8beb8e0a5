package fault

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"syscall"
	"time"
)

// Facts is what a request is about.
type Facts struct {
	SKUs     []string
	Customer string
	Key      string // tells requests apart that name no customer
}

// Request is one that faults may hit. Facts is called only when a lease in force asks for them.
type Request struct {
	Method, Route string
	Facts         func() Facts
}

// Answer is what faults want of the answer to a request.
type Answer struct {
	Failed *Lease // of type error: answer as it says, do no work
	Slow   *Lease // of type drip: send the body so slowly
}

// Apply does to the request what the faults say that match it: it delays and holds it, and ends the
// process. seen is called for every fault that has an effect, before it has.
func (l *Leases) Apply(ctx context.Context, r Request, seen func(*Lease)) (answer Answer) {
	now := time.Now()
	l.refresh(now)
	requests := l.current.Load().requests
	if len(requests) == 0 {
		return answer
	}
	facts := r.Facts
	r.Facts = func() Facts { // at most once
		found := facts()
		facts = func() Facts { return found }
		return found
	}
	for _, lease := range requests {
		if !now.Before(lease.ExpiresAt) || !lease.Match.matches(r) {
			continue
		}
		d := lease.draw(now)
		if !d.hit {
			continue
		}
		seen(lease)
		switch lease.Type {
		case "latency":
			l.hold(ctx, lease, d.delay)
		case "hang":
			l.hold(ctx, lease, time.Until(lease.ExpiresAt))
		case "crash":
			l.log.WarnContext(ctx, "crashing, as a fault wants it", "fault", lease.Name, "type", lease.Type)
			l.crash()
		case "drip":
			if answer.Slow == nil {
				answer.Slow = lease
			}
		case "error":
			answer.Failed = lease
			return answer
		}
	}
	return answer
}

// hold waits for so long, for as long as the lease is in force and the request is.
func (l *Leases) hold(ctx context.Context, lease *Lease, d time.Duration) {
	for end := time.Now().Add(d); l.InForce(lease); {
		left := time.Until(end)
		if left <= 0 || !sleep(ctx, min(left, checkEvery)) {
			return
		}
	}
}

// sleep returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func kill() {
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGKILL); err != nil {
		panic(err) // no process lacks the permission to kill itself
	}
	select {} // the signal is on its way
}

func (m Match) matches(r Request) bool {
	if m.Method != "" && m.Method != r.Method || m.Route != "" && m.Route != r.Route {
		return false
	}
	if m.SKU == "" && m.Customer == "" && m.Percentage == nil {
		return true
	}
	facts := r.Facts()
	if m.SKU != "" && !slices.Contains(facts.SKUs, m.SKU) || m.Customer != "" && m.Customer != facts.Customer {
		return false
	}
	return m.Percentage == nil || bucket(facts.who()) < *m.Percentage*buckets/100
}

func (f Facts) who() string {
	if f.Customer != "" {
		return f.Customer
	}
	return f.Key
}

// buckets is what a percentage is counted in.
const buckets = 10_000

// bucket is where a customer, or a key, always is among the parts of all of them; the Python
// services compute the same.
func bucket(who string) float64 {
	sum := sha256.Sum256([]byte(who))
	return float64(binary.BigEndian.Uint64(sum[:8]) % buckets)
}

// Pace sends a body as slowly as a lease of type drip wants: write gets one part after the other, and
// the rest once the lease is over.
func (l *Leases) Pace(ctx context.Context, lease *Lease, body []byte, write func([]byte) error) error {
	const perSecond = 10
	size := max(1, int(*lease.Params.BytesPerS/perSecond))
	for len(body) > 0 {
		if !l.InForce(lease) {
			return write(body)
		}
		part := body[:min(size, len(body))]
		if err := write(part); err != nil {
			return err
		}
		body = body[len(part):]
		wait := time.Duration(float64(len(part)) / *lease.Params.BytesPerS * float64(time.Second))
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
	return nil
}
