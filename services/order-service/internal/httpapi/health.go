package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Health is the answer of the health endpoints.
type Health struct {
	Status string            `json:"status" enum:"ok,unavailable"`
	Checks map[string]string `json:"checks"`
	Peers  map[string]string `json:"peers" doc:"For information: a peer that fails does not make this service unready"`
}

type healthOutput struct {
	Status int
	Body   Health
}

const checkTimeout = time.Second

func (s *server) registerHealth() {
	for _, h := range []struct {
		path, summary string
		check         func(context.Context) Health
	}{
		{"/livez", "Is the process alive?", func(context.Context) Health { return s.health() }},
		{"/readyz", "Should it be sent requests?", s.ready},
		{"/startupz", "Has it started?", s.ready},
	} {
		huma.Register(s.api, huma.Operation{
			OperationID: h.path[1:], Method: http.MethodGet, Path: h.path, Summary: h.summary,
			Tags: []string{"health"}, Errors: []int{431},
			Responses: map[string]*huma.Response{"503": {
				Description: "No", Content: map[string]*huma.MediaType{"application/json": {
					Schema: &huma.Schema{Ref: "#/components/schemas/Health"}}},
			}},
		}, func(ctx context.Context, _ *struct{}) (*healthOutput, error) {
			out := &healthOutput{Status: http.StatusOK, Body: h.check(ctx)}
			if out.Body.Status != "ok" {
				out.Status = http.StatusServiceUnavailable
			}
			return out, nil
		})
	}
}

func (s *server) health() Health {
	return Health{Status: "ok", Checks: map[string]string{}, Peers: s.Peers()}
}

func (s *server) ready(ctx context.Context) Health {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	h := s.health()
	check := func(name string, err error) {
		h.Checks[name] = "ok"
		if err != nil {
			h.Checks[name], h.Status = err.Error(), "unavailable"
		}
	}
	check("database", s.Database.Ping(ctx))
	if !s.migrated.Load() { // the schema does not go back: once is enough
		err := s.Database.Migrated(ctx)
		check("migrations", err)
		s.migrated.Store(err == nil)
	} else {
		check("migrations", nil)
	}
	if s.Draining() {
		h.Checks["shutdown"], h.Status = "in progress", "unavailable"
	}
	return h
}
