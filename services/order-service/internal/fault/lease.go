// Package fault injects latency and errors into requests, by leases that end by the wall clock.
package fault

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"regexp"
	"sync"
	"time"
)

// Limits of the fault contract.
const (
	maxTTL   = 900
	maxDelay = 30 * time.Second
)

// Lease is a fault that is in force until ExpiresAt.
type Lease struct {
	Name      string
	Type      string
	Params    Params
	Match     Match
	TTL       int
	CreatedAt time.Time
	ExpiresAt time.Time

	draw func() effect
}

// equal tells whether other is the same lease, wherever each is in its draws.
func (l *Lease) equal(other *Lease) bool {
	a, b := *l, *other
	a.draw, b.draw = nil, nil
	return reflect.DeepEqual(a, b)
}

// Params of all types and distributions; which are needed depends on Type and Distribution.
// Delays and their parameters are milliseconds.
type Params struct {
	Distribution string   `json:"distribution,omitempty" nullable:"true" pattern:"^(constant|normal|pareto)$" patternDescription:"constant, normal or pareto" doc:"Of the delay; for type latency"`
	DelayMS      *float64 `json:"delay_ms,omitempty" nullable:"true" minimum:"0" maximum:"30000" doc:"Constant delay"`
	MeanMS       *float64 `json:"mean_ms,omitempty" nullable:"true" minimum:"0" maximum:"30000" doc:"Normal delay"`
	StddevMS     *float64 `json:"stddev_ms,omitempty" nullable:"true" minimum:"0" maximum:"30000" doc:"Normal delay"`
	ScaleMS      *float64 `json:"scale_ms,omitempty" nullable:"true" exclusiveMinimum:"0" maximum:"30000" doc:"Least Pareto delay"`
	Shape        *float64 `json:"shape,omitempty" nullable:"true" exclusiveMinimum:"0" maximum:"1000" doc:"Pareto tail index"`
	Rate         *float64 `json:"rate,omitempty" nullable:"true" exclusiveMinimum:"0" maximum:"1" doc:"Share of requests that is hit; type latency hits all without it"`
	Select       string   `json:"select,omitempty" nullable:"true" pattern:"^(random|count)$" patternDescription:"random or count" doc:"count: of n requests exactly floor(n·rate) are hit, evenly spread; random, the default: each by chance"`
	Status       int      `json:"status,omitempty" nullable:"true" minimum:"400" maximum:"599" doc:"Answer of type error; default 503"`
	Seed         *int64   `json:"seed,omitempty" nullable:"true" doc:"Makes the draws repeatable"`
}

// Match restricts a fault; an empty field matches everything.
type Match struct {
	_      struct{} `nullable:"true"`
	Method string   `json:"method,omitempty" nullable:"true" pattern:"^(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS)$" patternDescription:"an HTTP method in capitals"`
	Route  string   `json:"route,omitempty" nullable:"true" maxLength:"200" example:"/api/v1/orders/{id}" doc:"Path template as in the OpenAPI document"`
}

func (m Match) matches(method, route string) bool {
	return (m.Method == "" || m.Method == method) && (m.Route == "" || m.Route == route)
}

// effect is one draw of a fault.
type effect struct {
	delay  time.Duration
	status int // 0: the request goes on
}

var nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// InvalidError says which part of a fault is wrong.
type InvalidError struct{ Field, Message string }

func (e *InvalidError) Error() string { return e.Field + ": " + e.Message }

// prepare checks the lease and makes its draws.
func (l *Lease) prepare() error {
	if !nameRE.MatchString(l.Name) {
		return &InvalidError{"name", "must match " + nameRE.String()}
	}
	if l.TTL < 1 || l.TTL > maxTTL {
		return &InvalidError{"ttl_s", fmt.Sprintf("must be 1 to %d", maxTTL)}
	}
	seed := rand.Uint64()
	if l.Params.Seed != nil {
		seed = uint64(*l.Params.Seed)
	}
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, seed))
	draw, err := l.Params.effects(l.Type, rng)
	if err != nil {
		return err
	}
	hits, err := l.Params.selection(rng)
	if err != nil {
		return err
	}
	l.draw = func() effect {
		mu.Lock()
		defer mu.Unlock()
		if !hits() {
			return effect{}
		}
		return draw()
	}
	return nil
}

// selection tells of one request after the other whether it is hit.
func (p Params) selection(rng *rand.Rand) (func() bool, error) {
	rate := 1.0
	if p.Rate != nil {
		rate = *p.Rate
	}
	if !(rate > 0 && rate <= 1) {
		return nil, &InvalidError{"params.rate", "must be above 0 and at most 1"}
	}
	switch p.Select {
	case "", "random":
		return func() bool { return rate == 1 || rng.Float64() < rate }, nil
	case "count":
		// In whole numbers: 100 × 0.29 in floats is 28.999….
		const unit = 1_000_000_000
		share, sum := int64(math.Round(rate*unit)), int64(0)
		return func() bool {
			sum += share
			hit := sum >= unit
			if hit {
				sum -= unit
			}
			return hit
		}, nil
	}
	return nil, &InvalidError{"params.select", "must be random or count"}
}

func (p Params) effects(kind string, rng *rand.Rand) (func() effect, error) {
	switch kind {
	case "latency":
		millis, err := p.delays(rng)
		if err != nil {
			return nil, err
		}
		return func() effect { return effect{delay: clip(millis())} }, nil
	case "error":
		if p.Rate == nil {
			return nil, &InvalidError{"params.rate", "is needed for type error"}
		}
		status := p.Status
		if status == 0 {
			status = 503
		}
		if status < 400 || status > 599 {
			return nil, &InvalidError{"params.status", "must be 400 to 599"}
		}
		return func() effect { return effect{status: status} }, nil
	}
	return nil, &InvalidError{"type", "must be latency or error"}
}

// delays draws milliseconds: Pareto by inversion, scale·U^(-1/shape) with U uniform in (0, 1].
func (p Params) delays(rng *rand.Rand) (func() float64, error) {
	switch p.Distribution {
	case "constant":
		if p.DelayMS == nil || !(*p.DelayMS >= 0) {
			return nil, &InvalidError{"params.delay_ms", "must be 0 or more"}
		}
		return func() float64 { return *p.DelayMS }, nil
	case "normal":
		if p.MeanMS == nil || !(*p.MeanMS >= 0) {
			return nil, &InvalidError{"params.mean_ms", "must be 0 or more"}
		}
		if p.StddevMS == nil || !(*p.StddevMS >= 0) {
			return nil, &InvalidError{"params.stddev_ms", "must be 0 or more"}
		}
		return func() float64 { return *p.MeanMS + *p.StddevMS*rng.NormFloat64() }, nil
	case "pareto":
		if p.ScaleMS == nil || !(*p.ScaleMS > 0) {
			return nil, &InvalidError{"params.scale_ms", "must be above 0"}
		}
		if p.Shape == nil || !(*p.Shape > 0) {
			return nil, &InvalidError{"params.shape", "must be above 0"}
		}
		return func() float64 { return *p.ScaleMS * math.Pow(1-rng.Float64(), -1 / *p.Shape) }, nil
	}
	return nil, &InvalidError{"params.distribution", "must be constant, normal or pareto"}
}

func clip(millis float64) time.Duration {
	if !(millis > 0) {
		return 0
	}
	return time.Duration(min(millis, float64(maxDelay.Milliseconds())) * float64(time.Millisecond))
}

// file is the format of the leases file, shared by the services of prove.
type file struct {
	Version int               `json:"version"`
	Leases  map[string]onDisk `json:"leases"`
}

type onDisk struct {
	Type      string `json:"type"`
	Params    Params `json:"params"`
	Match     *Match `json:"match,omitempty"`
	TTL       int    `json:"ttl_s"`
	CreatedAt int64  `json:"created_at_unix_ms"`
	ExpiresAt int64  `json:"expires_at_unix_ms"`
}

func decode(raw []byte) (map[string]*Lease, error) {
	var f file
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, err
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("version %d is not known", f.Version)
	}
	leases := make(map[string]*Lease, len(f.Leases))
	var errs []error
	for name, d := range f.Leases {
		l := &Lease{Name: name, Type: d.Type, Params: d.Params, TTL: d.TTL,
			CreatedAt: time.UnixMilli(d.CreatedAt).UTC(), ExpiresAt: time.UnixMilli(d.ExpiresAt).UTC()}
		if d.Match != nil {
			l.Match = *d.Match
		}
		if err := l.prepare(); err != nil {
			errs = append(errs, fmt.Errorf("lease %s: %w", name, err))
			continue
		}
		leases[name] = l
	}
	return leases, errors.Join(errs...)
}

func encode(leases map[string]*Lease) ([]byte, error) {
	f := file{Version: 1, Leases: make(map[string]onDisk, len(leases))}
	for name, l := range leases {
		d := onDisk{Type: l.Type, Params: l.Params, TTL: l.TTL,
			CreatedAt: l.CreatedAt.UnixMilli(), ExpiresAt: l.ExpiresAt.UnixMilli()}
		if l.Match != (Match{}) {
			d.Match = &l.Match
		}
		f.Leases[name] = d
	}
	return json.MarshalIndent(f, "", " ")
}
