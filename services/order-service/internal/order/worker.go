package order

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const (
	// A process says every beatEvery that it lives for aliveFor; when it does not, its orders are
	// anybody's. Versions protect what a process does that was only slow.
	beatEvery = time.Second
	aliveFor  = 4 * time.Second
	// horizon is further ahead than any time that is recorded, clocks that differ included.
	horizon = 30 * time.Second

	pollEvery  = 250 * time.Millisecond
	atOnce     = 64 // orders resumed side by side: those that wait must not hold up the rest
	purgeEvery = time.Hour
	purgeLimit = 1000

	workTime       = 8 * time.Second // bounds one try at an order in the background
	backgroundWait = time.Second
)

// Enlist records that this process lives. It comes before the first order and Work.
func (s *Service) Enlist(ctx context.Context) error {
	err := s.Store.Beat(ctx, s.Worker, utcNow().Add(aliveFor))
	s.alive.Store(err == nil)
	return err
}

// Work resumes orders that were put off, or that a process left when it died, until ctx ends. It
// returns when the orders it has taken up have reached a recorded state, and leaves what this
// process still owns to others.
func (s *Service) Work(ctx context.Context) {
	var beating, busy sync.WaitGroup
	end := make(chan struct{})
	beating.Go(func() { s.beat(context.WithoutCancel(ctx), end) })
	defer func() {
		busy.Wait()
		close(end)
		beating.Wait()
		if err := s.Store.Retire(context.WithoutCancel(ctx), s.Worker); err != nil {
			s.Log.ErrorContext(ctx, "unfinished orders wait for this process to be taken for dead", "error", err.Error())
		}
	}()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	purge := time.NewTicker(purgeEvery)
	defer purge.Stop()
	s.forgetKeys(ctx)
	slots := make(chan struct{}, atOnce)
	for {
		select {
		case <-ctx.Done():
			return
		case <-purge.C:
			s.forgetKeys(ctx)
		case <-poll.C:
			for _, o := range s.claim(ctx, atOnce-len(slots)) {
				slots <- struct{}{}
				busy.Go(func() {
					defer func() { <-slots }()
					s.resume(ctx, o)
				})
			}
		}
	}
}

func (s *Service) beat(ctx context.Context, end <-chan struct{}) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-end:
			return
		case <-tick.C:
			if err := s.Enlist(ctx); err != nil {
				s.Log.ErrorContext(ctx, "the database does not record that this process lives", "error", err.Error())
				continue
			}
			s.stranded.each(func(id string, f fate) bool { return s.refloat(ctx, id, f) })
		}
	}
}

func (s *Service) claim(ctx context.Context, limit int) []*Order {
	if limit == 0 || !s.alive.Load() {
		return nil
	}
	now := utcNow()
	orders, err := s.Store.Claim(ctx, s.Worker, now, now.Add(horizon), limit)
	if err != nil && ctx.Err() == nil {
		s.Log.ErrorContext(ctx, "orders that are due cannot be read", "error", err.Error())
	}
	return orders
}

func (s *Service) resume(ctx context.Context, o *Order) {
	ctx, cancel := context.WithTimeout(ctx, workTime)
	defer cancel()
	first := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(
		context.Background(), propagation.MapCarrier{"traceparent": o.TraceParent}))
	ctx, span := s.Tracer.Start(ctx, "resume order",
		trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: first}),
		trace.WithAttributes(attribute.String("prove.order.id", o.ID),
			attribute.String("prove.order.step", string(o.Step)),
			attribute.Int("prove.order.attempts", o.Attempts)))
	defer span.End()
	if _, err := s.run(ctx, o); err != nil {
		failSpan(ctx, err)
		return
	}
	span.SetAttributes(attribute.String("prove.order.status", string(o.Status)))
	if o.Step == StepNone {
		s.Log.InfoContext(ctx, "order finished in the background", "order_id", o.ID,
			"status", string(o.Status), "first_trace_id", first.TraceID().String())
	}
}

func (s *Service) forgetKeys(ctx context.Context) {
	for {
		n, err := s.Store.ForgetKeys(ctx, utcNow().Add(-keyLifetime), purgeLimit)
		if err != nil {
			s.Log.ErrorContext(ctx, "old idempotency keys cannot be deleted", "error", err.Error())
		}
		if n < purgeLimit {
			return
		}
	}
}

// stranded are orders that this living process owns without working on them: the database failed
// while they were recorded, and may have recorded them or not. Nobody else would take them up.
type stranded struct {
	mu     sync.Mutex
	orders map[string]fate
}

type fate int

const (
	goOn fate = iota // the workers go on with it
	drop             // its customer was told that it was not taken
)

func (s *stranded) add(id string, f fate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.orders == nil {
		s.orders = map[string]fate{}
	}
	s.orders[id] = f
}

// each forgets the orders for which do returns true.
func (s *stranded) each(do func(string, fate) bool) {
	s.mu.Lock()
	orders := s.orders
	s.orders = nil
	s.mu.Unlock()
	for id, f := range orders {
		if !do(id, f) {
			s.add(id, f)
		}
	}
}

// refloat leaves a stranded order to the workers. It returns false while the database fails.
func (s *Service) refloat(ctx context.Context, id string, f fate) bool {
	o, err := s.Store.Get(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return true
	case err != nil:
		return false
	case o.Owner != s.Worker || o.Step == StepNone:
		return true
	}
	now := utcNow()
	var answer *Answer
	if f == drop && o.reject(Failure{Code: Unavailable, Reason: "the database failed"}, StepNone, now) == nil {
		a := s.Render(ctx, o)
		o.Owner, answer = "", &a
	} else {
		o.putOff(now, now)
	}
	err = s.Store.Save(ctx, o, answer)
	return err == nil || errors.Is(err, ErrConflict) // on a conflict somebody else has it
}
