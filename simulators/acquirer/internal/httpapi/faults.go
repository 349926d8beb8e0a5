package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"prove/acquirer/internal/fault"
)

// lingering is how long a connection stays open that two answers were sent over.
const lingering = 5 * time.Second

type leaseAnswer struct {
	Name      string       `json:"name"`
	Type      string       `json:"type"`
	Params    fault.Params `json:"params"`
	TTL       int          `json:"ttl_s"`
	CreatedAt time.Time    `json:"created_at"`
	ExpiresAt time.Time    `json:"expires_at"`
}

func leaseOf(l *fault.Lease) leaseAnswer {
	return leaseAnswer{l.Name, l.Type, l.Params, l.TTL, l.CreatedAt, l.ExpiresAt}
}

// admin lets in who has the token; without one configured there is nothing here.
func (a *API) admin(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case a.AdminToken == "":
			refuse(w, http.StatusNotFound, "not-found", "there is nothing at this path")
		case !sameToken(r.Header.Get("Authorization"), "Bearer "+a.AdminToken):
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "unauthorized", "send the header Authorization: Bearer <admin token>")
		default:
			next(w, r)
		}
	}
}

// sameToken compares digests, so that the time taken tells neither content nor length.
func sameToken(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

func (a *API) putFault(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Type   string                     `json:"type"`
		Params map[string]json.RawMessage `json:"params"`
		Match  json.RawMessage            `json:"match"`
		TTL    int                        `json:"ttl_s"`
	}
	if !a.decode(w, r, &body) {
		return
	}
	lease, err := fault.New(r.PathValue("name"), body.Type, body.Params, body.TTL)
	if err == nil && len(body.Match) > 0 && string(body.Match) != "null" && string(body.Match) != "{}" {
		err = &fault.InvalidError{Field: "match", Message: "the acquirer's scenarios have none"}
	}
	if err == nil {
		err = a.Faults.Put(lease)
	}
	if err != nil {
		a.refuseFault(w, err)
		return
	}
	a.Log.Warn("fault injected", "fault", lease.Name, "type", lease.Type, "ttl_s", lease.TTL)
	answer(w, http.StatusOK, leaseOf(lease))
}

func (a *API) listFaults(w http.ResponseWriter, _ *http.Request) {
	items := []leaseAnswer{}
	for _, l := range a.Faults.List() {
		items = append(items, leaseOf(l))
	}
	answer(w, http.StatusOK, map[string]any{"items": items})
}

func (a *API) deleteFault(w http.ResponseWriter, r *http.Request) {
	if err := a.Faults.Delete(r.PathValue("name")); err != nil {
		a.refuseFault(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *API) refuseFault(w http.ResponseWriter, err error) {
	var wrong *fault.InvalidError
	if !errors.As(err, &wrong) {
		a.Log.Error("the leases file failed", "error", err.Error())
		refuse(w, http.StatusServiceUnavailable, "unavailable", "the leases file cannot be written")
		return
	}
	send(w, problem{
		Type: "/problems/validation", Title: http.StatusText(http.StatusUnprocessableEntity),
		Status: http.StatusUnprocessableEntity, Detail: wrong.Error(),
		Errors: []fieldError{{Loc: "body." + wrong.Field, Msg: wrong.Message}},
	})
}

type disturbanceKey struct{}

// disturbanceOf is what the scenarios in force want of a request.
func disturbanceOf(ctx context.Context) fault.Disturbance {
	d, _ := ctx.Value(disturbanceKey{}).(fault.Disturbance)
	return d
}

// disturbed plays the scenarios in force around a handler.
func (a *API) disturbed(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d := a.Faults.Next()
		if d == (fault.Disturbance{}) {
			next(w, r)
			return
		}
		if d.Drop {
			panic(http.ErrAbortHandler)
		}
		if d.Fail {
			refuse(w, http.StatusInternalServerError, "internal", "the acquirer fails")
			return
		}
		kept := &keptAnswer{header: http.Header{}}
		next(kept, r.WithContext(context.WithValue(r.Context(), disturbanceKey{}, d)))
		select {
		case <-time.After(d.Delay):
		case <-r.Context().Done():
			return
		}
		if d.Twice {
			a.sendTwice(w, kept)
			return
		}
		kept.sendTo(w)
	}
}

// keptAnswer is an answer that is not sent yet.
type keptAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *keptAnswer) Header() http.Header         { return k.header }
func (k *keptAnswer) WriteHeader(status int)      { k.status = status }
func (k *keptAnswer) Write(p []byte) (int, error) { return k.body.Write(p) }

func (k *keptAnswer) sendTo(w http.ResponseWriter) {
	for name, values := range k.header {
		w.Header()[name] = values
	}
	w.WriteHeader(k.status)
	_, _ = w.Write(k.body.Bytes()) // the only error is a caller that left
}

// sendTwice writes the answer again behind itself, where the answer to the next request would be.
func (a *API) sendTwice(w http.ResponseWriter, k *keptAnswer) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		a.Log.Error("the answer cannot be sent twice", "error", err.Error())
		k.sendTo(w)
		return
	}
	defer func() { _ = conn.Close() }()
	var once bytes.Buffer
	fmt.Fprintf(&once, "HTTP/1.1 %d %s\r\n", k.status, http.StatusText(k.status))
	k.header.Set("Content-Length", fmt.Sprint(k.body.Len()))
	_ = k.header.Write(&once) // a buffer takes everything
	once.WriteString("\r\n")
	once.Write(k.body.Bytes())
	_ = conn.SetDeadline(time.Now().Add(lingering))
	if _, err := conn.Write(bytes.Repeat(once.Bytes(), 2)); err == nil {
		// Until the caller hangs up: it must not be spared by a connection that closes at once.
		_, _ = io.Copy(io.Discard, conn)
	}
}
