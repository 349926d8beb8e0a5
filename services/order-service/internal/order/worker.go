package order

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const (
	pollEvery  = 250 * time.Millisecond
	atOnce     = 16 // orders resumed side by side: one that waits must not hold up the rest
	purgeEvery = time.Hour
	purgeLimit = 1000
)

// Work resumes orders that were put off, or that a process left when it died, until ctx ends. It
// returns when the orders it has taken up have reached a recorded state.
func (s *Service) Work(ctx context.Context) {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	purge := time.NewTicker(purgeEvery)
	defer purge.Stop()
	s.forgetKeys(ctx)
	var busy sync.WaitGroup
	defer busy.Wait()
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

func (s *Service) claim(ctx context.Context, limit int) []*Order {
	if limit == 0 {
		return nil
	}
	now := utcNow()
	orders, err := s.Store.Claim(ctx, now, now.Add(workTime+leaseSlack), limit)
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
	s.run(ctx, o)
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
