// Package fault injects faults into requests and into the process, by leases that end by the wall
// clock.
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

	draw func(now time.Time) draw
}

// equal tells whether other is the same lease, wherever each is in its draws.
func (l *Lease) equal(other *Lease) bool {
	a, b := *l, *other
	a.draw, b.draw = nil, nil
	return reflect.DeepEqual(a, b)
}

// Background tells whether the fault hits the process as a whole, and not requests.
func (l *Lease) Background() bool { return kinds[l.Type].background }

// Params of all types; which are needed depends on Type, those of others are refused. Delays and
// their parameters are milliseconds.
type Params struct {
	Distribution string   `json:"distribution,omitempty" nullable:"true" pattern:"^(constant|normal|pareto|ramp)$" patternDescription:"constant, normal, pareto or ramp" doc:"Of the delay; for type latency"`
	DelayMS      *float64 `json:"delay_ms,omitempty" nullable:"true" minimum:"0" maximum:"30000" doc:"Constant delay"`
	MeanMS       *float64 `json:"mean_ms,omitempty" nullable:"true" minimum:"0" maximum:"30000" doc:"Normal delay"`
	StddevMS     *float64 `json:"stddev_ms,omitempty" nullable:"true" minimum:"0" maximum:"30000" doc:"Normal delay"`
	ScaleMS      *float64 `json:"scale_ms,omitempty" nullable:"true" exclusiveMinimum:"0" maximum:"30000" doc:"Least Pareto delay"`
	Shape        *float64 `json:"shape,omitempty" nullable:"true" exclusiveMinimum:"0" maximum:"100" doc:"Pareto tail index"`
	FromMS       *float64 `json:"from_ms,omitempty" nullable:"true" minimum:"0" maximum:"30000" doc:"Ramp: the first delay"`
	ToMS         *float64 `json:"to_ms,omitempty" nullable:"true" minimum:"0" maximum:"30000" doc:"Ramp: the last delay"`
	OverS        *float64 `json:"over_s,omitempty" nullable:"true" exclusiveMinimum:"0" maximum:"900" doc:"Ramp: seconds from the first to the last"`
	Rate         *float64 `json:"rate,omitempty" nullable:"true" exclusiveMinimum:"0" maximum:"1" doc:"Share of requests that is hit; type error needs it, others hit all without it"`
	Select       string   `json:"select,omitempty" nullable:"true" pattern:"^(random|count)$" patternDescription:"random or count" doc:"count: of n requests exactly floor(n·rate) are hit, evenly spread; random, the default: each by chance"`
	Seed         *int64   `json:"seed,omitempty" nullable:"true" doc:"Makes the draws repeatable"`
	Status       int      `json:"status,omitempty" nullable:"true" minimum:"400" maximum:"599" doc:"Answer of type error; default 503"`
	Body         *string  `json:"body,omitempty" nullable:"true" maxLength:"4096" doc:"Of type error, sent as text; default: problem details"`
	BytesPerS    *float64 `json:"bytes_per_s,omitempty" nullable:"true" minimum:"1" maximum:"1000000" doc:"Type drip: how fast the answer's body is sent"`
	AfterS       *float64 `json:"after_s,omitempty" nullable:"true" minimum:"1" maximum:"900" doc:"Type crash-loop: how long the process may be up"`
	Share        *float64 `json:"share,omitempty" nullable:"true" exclusiveMinimum:"0" maximum:"1" doc:"Type cpu: of the CPU time that the process could use"`
	MBPerS       *float64 `json:"mb_per_s,omitempty" nullable:"true" exclusiveMinimum:"0" maximum:"512" doc:"Type memory: how fast it grows"`
	CapMB        int      `json:"cap_mb,omitempty" nullable:"true" minimum:"1" maximum:"512" doc:"Type memory: how far it grows"`
	Connections  int      `json:"connections,omitempty" nullable:"true" minimum:"1" maximum:"100" doc:"Type pool: how many database connections are kept"`
	All          bool     `json:"all,omitempty" nullable:"true" doc:"Type pool: all of them are"`
	HoldMS       *float64 `json:"hold_ms,omitempty" nullable:"true" exclusiveMinimum:"0" maximum:"30000" doc:"Type lock: how long the database's write lock is held"`
	EveryMS      *float64 `json:"every_ms,omitempty" nullable:"true" exclusiveMinimum:"0" maximum:"60000" doc:"Type lock: from one beginning to the next"`
}

// Match restricts a fault to some requests; an empty field matches everything.
type Match struct {
	_          struct{} `nullable:"true"`
	Method     string   `json:"method,omitempty" nullable:"true" pattern:"^(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS)$" patternDescription:"an HTTP method in capitals"`
	Route      string   `json:"route,omitempty" nullable:"true" maxLength:"200" example:"/api/v1/orders/{id}" doc:"Path template as in the OpenAPI document"`
	SKU        string   `json:"sku,omitempty" nullable:"true" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$" doc:"Checkouts with this product among the lines"`
	Customer   string   `json:"customer,omitempty" nullable:"true" pattern:"^[A-Za-z0-9._-]{1,64}$" doc:"Requests that name this customer"`
	Percentage *float64 `json:"percentage,omitempty" nullable:"true" exclusiveMinimum:"0" maximum:"100" doc:"Of the customers, always the same ones; where a request names no customer, of its keys"`
}

// kind is a type of fault. needs and may are names of parameters.
type kind struct {
	background bool
	needs, may []string
}

var choice = []string{"rate", "select", "seed"}

// Types of faults. Those that hit requests have rate, select and seed besides.
var kinds = map[string]kind{
	"latency":    {needs: []string{"distribution"}, may: choice},
	"error":      {needs: []string{"rate"}, may: append([]string{"status", "body"}, choice...)},
	"hang":       {may: choice},
	"crash":      {may: choice},
	"drip":       {needs: []string{"bytes_per_s"}, may: choice},
	"crash-loop": {background: true, needs: []string{"after_s"}},
	"cpu":        {background: true, needs: []string{"share"}},
	"memory":     {background: true, needs: []string{"mb_per_s", "cap_mb"}},
	"pool":       {background: true, may: []string{"connections", "all"}},
	"lock":       {background: true, needs: []string{"hold_ms", "every_ms"}},
}

var distributions = map[string][]string{
	"constant": {"delay_ms"},
	"normal":   {"mean_ms", "stddev_ms"},
	"pareto":   {"scale_ms", "shape"},
	"ramp":     {"from_ms", "to_ms", "over_s"},
}

// Types names all types of faults, as an OpenAPI document has them.
const Types = "latency,error,hang,crash,drip,crash-loop,cpu,memory,pool,lock"

var nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// InvalidError says which part of a fault is wrong.
type InvalidError struct{ Field, Message string }

func (e *InvalidError) Error() string { return e.Field + ": " + e.Message }

// draw is what a fault does to one request.
type draw struct {
	hit   bool
	delay time.Duration // of type latency
}

// prepare checks the lease and makes its draws.
func (l *Lease) prepare() error {
	if !nameRE.MatchString(l.Name) {
		return &InvalidError{"name", "must match " + nameRE.String()}
	}
	if l.TTL < 1 || l.TTL > maxTTL {
		return &InvalidError{"ttl_s", fmt.Sprintf("must be 1 to %d", maxTTL)}
	}
	if err := l.check(); err != nil {
		return err
	}
	seed := rand.Uint64()
	if l.Params.Seed != nil {
		seed = uint64(*l.Params.Seed)
	}
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, seed))
	hits := l.Params.selection(rng)
	millis := l.Params.delays(rng)
	l.draw = func(now time.Time) draw {
		mu.Lock()
		defer mu.Unlock()
		if !hits() {
			return draw{}
		}
		return draw{hit: true, delay: clip(millis(now.Sub(l.CreatedAt)))}
	}
	return nil
}

// check holds the lease to what its type has: all that is needed, nothing else.
func (l *Lease) check() error {
	k, known := kinds[l.Type]
	if !known {
		return &InvalidError{"type", "must be one of " + Types}
	}
	if k.background && !l.Match.Everything() {
		return &InvalidError{"match", "is not for type " + l.Type + ", which hits the whole process"}
	}
	if p := l.Match.Percentage; p != nil && !(*p > 0 && *p <= 100) {
		return &InvalidError{"match.percentage", "must be above 0 and at most 100"}
	}
	needs := k.needs
	if l.Type == "latency" {
		of, known := distributions[l.Params.Distribution]
		if !known {
			return &InvalidError{"params.distribution", "must be constant, normal, pareto or ramp"}
		}
		needs = append(append([]string{}, needs...), of...)
	}
	return l.Params.check(l.Type, needs, k.may)
}

// check looks at every parameter by its name; limits are those of the schema.
func (p Params) check(kind string, needs, may []string) error {
	given, missing := reflect.ValueOf(p), map[string]bool{}
	for _, name := range needs {
		missing[name] = true
	}
	allowed := map[string]bool{}
	for _, name := range may {
		allowed[name] = true
	}
	for i := range given.NumField() {
		field := given.Type().Field(i)
		name := jsonName(field)
		if given.Field(i).IsZero() {
			continue
		}
		if !missing[name] && !allowed[name] {
			return &InvalidError{"params." + name, "is not for type " + kind}
		}
		delete(missing, name)
		if err := within(field, given.Field(i)); err != nil {
			return err
		}
	}
	for _, name := range needs {
		if missing[name] {
			return &InvalidError{"params." + name, "is needed for type " + kind}
		}
	}
	if kind == "pool" && (p.Connections > 0) == p.All {
		return &InvalidError{"params.connections", "type pool needs either connections or all"}
	}
	return nil
}

// Everything tells whether it restricts nothing.
func (m Match) Everything() bool {
	return m.Method == "" && m.Route == "" && m.SKU == "" && m.Customer == "" && m.Percentage == nil
}

// selection tells of one request after the other whether it is hit.
func (p Params) selection(rng *rand.Rand) func() bool {
	rate := 1.0
	if p.Rate != nil {
		rate = *p.Rate
	}
	if p.Select != "count" {
		return func() bool { return rate == 1 || rng.Float64() < rate }
	}
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
	}
}

// delays draws milliseconds at an age of the lease: Pareto by inversion, scale·U^(-1/shape) with U
// uniform in (0, 1].
func (p Params) delays(rng *rand.Rand) func(age time.Duration) float64 {
	switch p.Distribution {
	case "constant":
		return func(time.Duration) float64 { return *p.DelayMS }
	case "normal":
		return func(time.Duration) float64 { return *p.MeanMS + *p.StddevMS*rng.NormFloat64() }
	case "pareto":
		return func(time.Duration) float64 { return *p.ScaleMS * math.Pow(1-rng.Float64(), -1 / *p.Shape) }
	case "ramp":
		return func(age time.Duration) float64 {
			done := min(max(age.Seconds() / *p.OverS, 0), 1)
			return *p.FromMS + (*p.ToMS-*p.FromMS)*done
		}
	}
	return func(time.Duration) float64 { return 0 }
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
		if !l.Match.Everything() {
			d.Match = &l.Match
		}
		f.Leases[name] = d
	}
	return json.MarshalIndent(f, "", " ")
}
