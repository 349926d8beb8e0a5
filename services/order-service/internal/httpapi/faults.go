package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"prove/order-service/internal/fault"
)

// Lease is a fault as clients see it.
type Lease struct {
	Name      string       `json:"name"`
	Type      string       `json:"type" enum:"latency,error,hang,crash,drip,crash-loop,cpu,memory,pool,lock"`
	Params    fault.Params `json:"params"`
	Match     *fault.Match `json:"match,omitempty"`
	TTL       int          `json:"ttl_s" doc:"Seconds"`
	CreatedAt time.Time    `json:"created_at"`
	ExpiresAt time.Time    `json:"expires_at"`
}

func viewLease(l *fault.Lease) Lease {
	v := Lease{Name: l.Name, Type: l.Type, Params: l.Params, TTL: l.TTL,
		CreatedAt: l.CreatedAt, ExpiresAt: l.ExpiresAt}
	if !l.Match.Everything() {
		v.Match = &l.Match
	}
	return v
}

// admin comes first in every input of the fault endpoints: it is checked before the rest is read.
type admin struct {
	Authorization string `header:"Authorization" doc:"Bearer and the admin token"`
}

type putFaultInput struct {
	admin
	Name string `path:"name" pattern:"^[a-z0-9][a-z0-9-]{0,62}$"`
	Body struct {
		Type   string       `json:"type" enum:"latency,error,hang,crash,drip,crash-loop,cpu,memory,pool,lock"`
		Params fault.Params `json:"params,omitempty"`
		Match  *fault.Match `json:"match,omitempty" doc:"Without it, every route but those of health, faults and OpenAPI; not for faults of the whole process"`
		TTL    int          `json:"ttl_s" minimum:"1" maximum:"900" doc:"Seconds until the fault ends by itself"`
	}
}

type leaseOutput struct{ Body Lease }

type leasesOutput struct {
	Body struct {
		Items []Lease `json:"items" nullable:"false"`
	}
}

type deleteFaultInput struct {
	admin
	Name string `path:"name" pattern:"^[a-z0-9][a-z0-9-]{0,62}$"`
}

func (s *server) registerFaults() {
	s.api.OpenAPI().Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"admin": {Type: "http", Scheme: "bearer", Description: "The admin token of this installation"},
	}
	operation := func(id, method, path, summary string, more ...int) huma.Operation {
		return huma.Operation{
			OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{"faults"},
			Security:    []map[string][]string{{"admin": {}}},
			Middlewares: huma.Middlewares{s.requireAdmin},
			Errors:      append([]int{400, 401, 404, 408, 413, 415, 422, 431}, more...),
		}
	}
	huma.Register(s.api, operation("put-fault", http.MethodPut, "/faults/{name}", "Inject a fault", 503),
		func(ctx context.Context, in *putFaultInput) (*leaseOutput, error) {
			l := &fault.Lease{Name: in.Name, Type: in.Body.Type, Params: in.Body.Params, TTL: in.Body.TTL}
			if in.Body.Match != nil {
				l.Match = *in.Body.Match
			}
			if err := s.Faults.Put(l); err != nil {
				return nil, s.faultProblem(ctx, "/faults/"+in.Name, err)
			}
			s.Log.WarnContext(ctx, "fault injected", "fault", l.Name, "type", l.Type, "ttl_s", l.TTL)
			return &leaseOutput{Body: viewLease(l)}, nil
		})
	huma.Register(s.api, operation("list-faults", http.MethodGet, "/faults", "List the faults in force"),
		func(context.Context, *struct{ admin }) (*leasesOutput, error) {
			out := &leasesOutput{}
			out.Body.Items = []Lease{}
			for _, l := range s.Faults.List() {
				out.Body.Items = append(out.Body.Items, viewLease(l))
			}
			return out, nil
		})
	huma.Register(s.api, operation("delete-fault", http.MethodDelete, "/faults/{name}", "End a fault", 503),
		func(ctx context.Context, in *deleteFaultInput) (*struct{}, error) {
			if err := s.Faults.Delete(in.Name); err != nil {
				return nil, s.faultProblem(ctx, "/faults/"+in.Name, err)
			}
			s.Log.WarnContext(ctx, "fault ended", "fault", in.Name)
			return nil, nil
		})
}

func (s *server) faultProblem(ctx context.Context, instance string, err error) error {
	var invalid *fault.InvalidError
	if errors.As(err, &invalid) {
		p := validation.problem(ctx, instance, invalid.Error())
		p.Errors = []FieldError{{Loc: "body." + invalid.Field, Msg: invalid.Message}}
		return p
	}
	s.Log.ErrorContext(ctx, "request failed", "error", err.Error())
	return leasesUnwritten.problem(ctx, instance, err.Error())
}

func (s *server) requireAdmin(ctx huma.Context, next func(huma.Context)) {
	u := ctx.URL()
	var p *Problem
	switch {
	case s.AdminToken == "":
		p = notFound.problem(ctx.Context(), u.Path, "")
	case !sameToken(ctx.Header("Authorization"), "Bearer "+s.AdminToken):
		ctx.SetHeader("WWW-Authenticate", "Bearer")
		p = unauthorized.problem(ctx.Context(), u.Path, "send the header Authorization: Bearer <admin token>")
	default:
		next(ctx)
		return
	}
	ctx.SetHeader("Content-Type", problemType)
	ctx.SetStatus(p.Status)
	// The client hung up if this fails.
	_, _ = ctx.BodyWriter().Write(marshal(p))
}

// sameToken compares digests, so that the time taken tells neither content nor length.
func sameToken(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
