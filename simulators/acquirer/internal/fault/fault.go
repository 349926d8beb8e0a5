// Package fault is the acquirer's part in experiments: scenarios that a provider may play, each a lease
// that ends by the wall clock. The contract is that of the shop's own services.
package fault

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const maxTTL = 900

// Lease is a scenario that is in force until ExpiresAt.
type Lease struct {
	Name      string
	Type      string
	Params    Params
	TTL       int
	CreatedAt time.Time
	ExpiresAt time.Time

	requests atomic.Int64 // that it may have hit so far
}

// Params of all types; which are needed depends on the type.
type Params struct {
	DelayMS *float64 `json:"delay_ms,omitempty"`
	PeriodS *float64 `json:"period_s,omitempty"`
	Rate    *float64 `json:"rate,omitempty"`
}

// limits of the parameters: above the first, or 1, and at most the second.
var limits = map[string][2]float64{"delay_ms": {1, 60_000}, "period_s": {1, maxTTL}, "rate": {0, 1}}

// kinds are the scenarios, and the parameter that each has; a rate need not be given.
var kinds = map[string]string{
	"slow":         "delay_ms",
	"flapping":     "period_s",
	"declining":    "rate",
	"answer-twice": "rate",
	"lose-answer":  "rate",
	"failing":      "rate",
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// InvalidError says which part of a fault is wrong.
type InvalidError struct{ Field, Message string }

func (e *InvalidError) Error() string { return e.Field + ": " + e.Message }

// New checks what a client wants against the contract; *InvalidError.
func New(name, kind string, params map[string]json.RawMessage, ttl int) (*Lease, error) {
	if !nameForm.MatchString(name) {
		return nil, &InvalidError{"name", "must match " + nameForm.String()}
	}
	if ttl < 1 || ttl > maxTTL {
		return nil, &InvalidError{"ttl_s", fmt.Sprintf("must be 1 to %d", maxTTL)}
	}
	own, known := kinds[kind]
	if !known {
		names := make([]string, 0, len(kinds))
		for one := range kinds {
			names = append(names, one)
		}
		slices.Sort(names)
		return nil, &InvalidError{"type", "must be one of " + strings.Join(names, ", ")}
	}
	lease := &Lease{Name: name, Type: kind, TTL: ttl}
	for parameter, raw := range params {
		if parameter != own {
			return nil, &InvalidError{"params." + parameter, "is not for type " + kind}
		}
		value, err := within(parameter, raw)
		if err != nil {
			return nil, err
		}
		switch parameter {
		case "delay_ms":
			lease.Params.DelayMS = &value
		case "period_s":
			lease.Params.PeriodS = &value
		case "rate":
			lease.Params.Rate = &value
		}
	}
	if _, given := params[own]; !given && own != "rate" {
		return nil, &InvalidError{"params." + own, "is needed for type " + kind}
	}
	return lease, nil
}

func within(parameter string, raw json.RawMessage) (value float64, err error) {
	limit := limits[parameter]
	if string(raw) == "null" || json.Unmarshal(raw, &value) != nil || value > limit[1] ||
		value < limit[0] || value == 0 {
		return 0, &InvalidError{"params." + parameter, fmt.Sprintf("must be a number from %g to %g, and not 0", limit[0], limit[1])}
	}
	return value, nil
}

func (l *Lease) equal(other *Lease) bool {
	return l.Name == other.Name && l.Type == other.Type && l.TTL == other.TTL && l.CreatedAt.Equal(other.CreatedAt) &&
		l.ExpiresAt.Equal(other.ExpiresAt) && reflect.DeepEqual(l.Params, other.Params)
}

// hits tells of one request after the other whether it is hit: of n exactly floor(n·rate) are.
func (l *Lease) hits() bool {
	const unit = 1_000_000_000
	rate := 1.0
	if l.Params.Rate != nil {
		rate = *l.Params.Rate
	}
	n, share := l.requests.Add(1), int64(math.Round(rate*unit))
	return n*share/unit > (n-1)*share/unit
}

// down tells whether a flapping acquirer is, which it is in the second half of each period.
func (l *Lease) down(now time.Time) bool {
	return math.Mod(now.Sub(l.CreatedAt).Seconds(), *l.Params.PeriodS) >= *l.Params.PeriodS/2
}

// Disturbance is what the scenarios in force want of one request. The zero value wants nothing.
type Disturbance struct {
	Drop    bool          // without doing anything
	Fail    bool          // without doing anything
	Decline bool          // what is not booked yet
	Lose    bool          // the first answer
	Twice   bool          // the answer is sent
	Delay   time.Duration // of the answer
}

// Next is the disturbance of the next request.
func (l *Leases) Next() (d Disturbance) {
	now := time.Now()
	for _, lease := range l.inForce(now) {
		switch lease.Type {
		case "slow":
			d.Delay = max(d.Delay, time.Duration(*lease.Params.DelayMS*float64(time.Millisecond)))
		case "flapping":
			d.Drop = d.Drop || lease.down(now)
		case "declining":
			d.Decline = lease.hits() || d.Decline
		case "answer-twice":
			d.Twice = lease.hits() || d.Twice
		case "lose-answer":
			d.Lose = lease.hits() || d.Lose
		case "failing":
			d.Fail = lease.hits() || d.Fail
		}
	}
	return d
}
