package fault

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// Database is what faults do to the database. Both end with ctx and put back what they took.
type Database interface {
	// Occupy takes connections of the pool, or all for 0, as they come free.
	Occupy(ctx context.Context, connections int)
	// Lock holds the write lock once, for so long.
	Lock(ctx context.Context, hold time.Duration) error
}

// Burdens are the faults that hit this process as a whole, each for as long as its lease is in force.
type Burdens struct {
	Leases   *Leases
	Database Database
	Log      *slog.Logger

	born  time.Time
	borne map[string]burden
	busy  sync.WaitGroup
}

type burden struct {
	lease *Lease
	end   context.CancelFunc
}

// While there is a fault of this kind, its end is noticed sooner than its beginning.
const (
	lookEvery   = time.Second
	followEvery = 200 * time.Millisecond
	// Whoever sets a crash loop is answered by a process that it would end.
	answerWithin = time.Second
)

// Follow bears what the leases file wants until ctx ends, and returns when nothing is borne any more.
func (b *Burdens) Follow(ctx context.Context) {
	b.born, b.borne = time.Now(), map[string]burden{}
	defer b.busy.Wait()
	for pause := lookEvery; sleep(ctx, pause); {
		wanted := b.Leases.Background()
		b.follow(ctx, wanted)
		pause = lookEvery
		if len(wanted) > 0 {
			pause = followEvery
		}
	}
	b.follow(ctx, nil)
}

func (b *Burdens) follow(ctx context.Context, wanted []*Lease) {
	in := map[*Lease]bool{}
	for _, lease := range wanted {
		in[lease] = true
	}
	for name, one := range b.borne {
		if !in[one.lease] {
			one.end()
			delete(b.borne, name)
			b.Log.WarnContext(ctx, "fault ends", "fault", name, "type", one.lease.Type)
		}
	}
	for _, lease := range wanted {
		if lease.Type == "crash-loop" {
			old := time.Since(b.born).Seconds() >= *lease.Params.AfterS
			if old && time.Since(lease.CreatedAt) >= answerWithin {
				b.Log.WarnContext(ctx, "crashing, as a fault wants it", "fault", lease.Name, "type", lease.Type)
				b.Leases.crash()
			}
			continue
		}
		if _, borne := b.borne[lease.Name]; !borne {
			b.begin(ctx, lease)
		}
	}
}

func (b *Burdens) begin(ctx context.Context, lease *Lease) {
	b.Log.WarnContext(ctx, "fault begins", "fault", lease.Name, "type", lease.Type)
	ctx, end := context.WithCancel(ctx)
	b.borne[lease.Name] = burden{lease, end}
	b.busy.Go(func() {
		p := lease.Params
		switch lease.Type {
		case "cpu":
			burn(ctx, *p.Share)
		case "memory":
			leak(ctx, *p.MBPerS, p.CapMB)
		case "pool":
			b.Database.Occupy(ctx, p.Connections)
		case "lock":
			b.lock(ctx, lease)
		}
	})
}

func (b *Burdens) lock(ctx context.Context, lease *Lease) {
	hold, every := *lease.Params.HoldMS, *lease.Params.EveryMS
	for again := true; again; {
		begun := time.Now()
		err := b.Database.Lock(ctx, millis(hold))
		wait := max(millis(every)-time.Since(begun), 10*time.Millisecond)
		if err != nil && ctx.Err() == nil { // somebody else holds it, or there is no database
			b.Log.WarnContext(ctx, "fault has no effect", "fault", lease.Name, "error", err.Error())
			wait = checkEvery
		}
		again = sleep(ctx, wait)
	}
}

func millis(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }

// burn uses a share of every core that the process may use.
func burn(ctx context.Context, share float64) {
	const period = 100 * time.Millisecond
	var cores sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		cores.Go(func() {
			for begun := time.Now(); ctx.Err() == nil; begun = time.Now() {
				n := 0
				for end := begun.Add(time.Duration(share * float64(period))); time.Now().Before(end); {
					for i := range 1000 {
						n += i * i
					}
				}
				runtime.KeepAlive(n)
				sleep(ctx, time.Until(begun.Add(period)))
			}
		})
	}
	cores.Wait()
}

// leak keeps memory that is really used, and gives it back to the system at the end.
func leak(ctx context.Context, mbPerS float64, capMB int) {
	const mb = 1 << 20
	defer debug.FreeOSMemory()
	var kept [][]byte
	size, begun := 0, time.Now()
	for sleep(ctx, checkEvery) {
		grown := min(int(time.Since(begun).Seconds()*mbPerS*mb), capMB*mb)
		if grown == size {
			continue
		}
		part := make([]byte, grown-size)
		for i := 0; i < len(part); i += 4096 {
			part[i] = 1
		}
		kept, size = append(kept, part), grown
	}
	runtime.KeepAlive(kept)
}
