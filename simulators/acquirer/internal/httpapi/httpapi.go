// Package httpapi serves the acquirer's HTTP interface.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"prove/acquirer/internal/fault"
	"prove/acquirer/internal/ledger"
)

const (
	defaultPage = 100
	maxPage     = 1000
	timeFormat  = "2006-01-02T15:04:05.000000Z"
)

var (
	keyForm      = regexp.MustCompile(`^[\x21-\x7e]{1,255}$`)
	currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)
)

// API answers over one ledger.
type API struct {
	Ledger       *ledger.Ledger
	Log          *slog.Logger
	SlowFor      time.Duration // how long a slow token's answer takes, from the booking on
	MaxBodyBytes int64
	Faults       *fault.Leases
	AdminToken   string      // empty: the fault endpoints do not exist
	Ready        func() bool // false from the stop signal on
}

type chargeRequest struct {
	Key         string `json:"key"`
	AmountMinor int64  `json:"amount_minor"`
	Currency    string `json:"currency"`
	MethodToken string `json:"method_token"`
	Reference   string `json:"reference"`
}

type refundRequest struct {
	Key         string `json:"key"`
	ChargeKey   string `json:"charge_key"`
	AmountMinor int64  `json:"amount_minor"`
}

type chargeAnswer struct {
	Key         string `json:"key"`
	ChargeID    string `json:"charge_id"`
	Status      string `json:"status"`
	Reason      string `json:"reason"`
	AmountMinor int64  `json:"amount_minor"`
	Currency    string `json:"currency"`
	CreatedAt   string `json:"created_at"`
}

type refundAnswer struct {
	Key         string `json:"key"`
	RefundID    string `json:"refund_id"`
	ChargeKey   string `json:"charge_key"`
	Status      string `json:"status"`
	AmountMinor int64  `json:"amount_minor"`
	Currency    string `json:"currency"`
	CreatedAt   string `json:"created_at"`
}

type ledgerEntry struct {
	Seq         int64  `json:"seq"`
	Kind        string `json:"kind"`
	Key         string `json:"key"`
	ChargeKey   string `json:"charge_key"`
	Reference   string `json:"reference"`
	Status      string `json:"status"`
	AmountMinor int64  `json:"amount_minor"`
	Currency    string `json:"currency"`
	CreatedAt   string `json:"created_at"`
}

// ledgerPage is one page of the book; Next is the `after` of the following one, null on the last.
type ledgerPage struct {
	Entries []ledgerEntry `json:"entries"`
	Next    *int64        `json:"next"`
}

// problem is an RFC 9457 error answer.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`

	Errors []fieldError `json:"errors,omitempty"`
}

// fieldError says what is wrong with one part of a request.
type fieldError struct {
	Loc string `json:"loc"`
	Msg string `json:"msg"`
}

// Handler routes the requests.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/charges", a.disturbed(a.charge))
	mux.HandleFunc("GET /v1/charges/{key}", a.disturbed(a.findCharge))
	mux.HandleFunc("POST /v1/refunds", a.disturbed(a.refund))
	mux.HandleFunc("GET /v1/ledger", a.list)
	mux.HandleFunc("GET /healthz", a.health)
	mux.HandleFunc("GET /faults", a.admin(a.listFaults))
	mux.HandleFunc("PUT /faults/{name}", a.admin(a.putFault))
	mux.HandleFunc("DELETE /faults/{name}", a.admin(a.deleteFault))
	return a.logged(mux)
}

func (a *API) charge(w http.ResponseWriter, r *http.Request) {
	var body chargeRequest
	if !a.decode(w, r, &body) {
		return
	}
	behaviour, known := behaviours[body.MethodToken]
	switch {
	case !keyForm.MatchString(body.Key):
		invalid(w, "key must be 1 to 255 printable ASCII characters")
		return
	case body.AmountMinor <= 0:
		invalid(w, "amount_minor must be above 0")
		return
	case !currencyForm.MatchString(body.Currency):
		invalid(w, "currency must be three capital letters (ISO 4217)")
		return
	case !known:
		invalid(w, "method_token is not one of the test tokens")
		return
	}
	// Once read, a charge is booked whether or not the caller waits: that is what a timeout hides.
	ctx := context.WithoutCancel(r.Context())
	disturbance := disturbanceOf(ctx)
	if disturbance.Decline {
		behaviour.status, behaviour.reason = ledger.StatusDeclined, "issuer_unavailable"
	}
	entry, first, err := a.Ledger.Charge(ctx, ledger.Entry{
		Key: body.Key, Status: behaviour.status, Reason: behaviour.reason, AmountMinor: body.AmountMinor,
		Currency: body.Currency, MethodToken: body.MethodToken, Reference: body.Reference,
	})
	if err != nil {
		a.fail(w, err)
		return
	}
	if (behaviour.mute || disturbance.Lose) && first {
		panic(http.ErrAbortHandler) // net/http's way to drop the connection without an answer
	}
	if behaviour.slow {
		select {
		case <-time.After(time.Until(entry.CreatedAt.Add(a.SlowFor))):
		case <-r.Context().Done():
			return
		}
	}
	answer(w, http.StatusOK, chargeOf(entry))
}

func (a *API) findCharge(w http.ResponseWriter, r *http.Request) {
	entry, err := a.Ledger.ChargeByKey(r.Context(), r.PathValue("key"))
	if err != nil {
		a.fail(w, err)
		return
	}
	answer(w, http.StatusOK, chargeOf(entry))
}

func (a *API) refund(w http.ResponseWriter, r *http.Request) {
	var body refundRequest
	if !a.decode(w, r, &body) {
		return
	}
	switch {
	case !keyForm.MatchString(body.Key) || !keyForm.MatchString(body.ChargeKey):
		invalid(w, "key and charge_key must be 1 to 255 printable ASCII characters")
		return
	case body.AmountMinor <= 0:
		invalid(w, "amount_minor must be above 0")
		return
	}
	entry, err := a.Ledger.Refund(context.WithoutCancel(r.Context()), body.Key, body.ChargeKey, body.AmountMinor)
	if err != nil {
		a.fail(w, err)
		return
	}
	answer(w, http.StatusOK, refundAnswer{
		Key: entry.Key, RefundID: entry.ID, ChargeKey: entry.ChargeKey, Status: entry.Status,
		AmountMinor: entry.AmountMinor, Currency: entry.Currency, CreatedAt: entry.CreatedAt.Format(timeFormat),
	})
}

func (a *API) list(w http.ResponseWriter, r *http.Request) {
	after, err := number(r, "after", 0)
	if err != nil || after < 0 {
		invalid(w, "after must be a sequence number")
		return
	}
	limit, err := number(r, "limit", defaultPage)
	if err != nil || limit < 1 || limit > maxPage {
		invalid(w, "limit must be 1 to "+strconv.Itoa(maxPage))
		return
	}
	entries, err := a.Ledger.List(r.Context(), after, int(limit)+1)
	if err != nil {
		a.fail(w, err)
		return
	}
	page := ledgerPage{Entries: []ledgerEntry{}}
	if len(entries) > int(limit) {
		entries = entries[:limit]
		page.Next = &entries[limit-1].Seq
	}
	for _, e := range entries {
		page.Entries = append(page.Entries, ledgerEntry{
			Seq: e.Seq, Kind: e.Kind, Key: e.Key, ChargeKey: e.ChargeKey, Reference: e.Reference, Status: e.Status,
			AmountMinor: e.AmountMinor, Currency: e.Currency, CreatedAt: e.CreatedAt.Format(timeFormat),
		})
	}
	answer(w, http.StatusOK, page)
}

func (a *API) health(w http.ResponseWriter, r *http.Request) {
	if err := a.Ledger.Ping(r.Context()); err != nil || !a.Ready() {
		answer(w, http.StatusServiceUnavailable, map[string]string{"status": "unavailable"})
		return
	}
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

// decode reads one JSON object; when it cannot, it has answered and returns false.
func (a *API) decode(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, a.MaxBodyBytes))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil && decoder.Decode(&struct{}{}) != io.EOF {
		err = errors.New("the body holds more than one JSON value")
	}
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return true
	case errors.As(err, &tooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, "body-too-large",
			"the body is larger than "+strconv.FormatInt(a.MaxBodyBytes, 10)+" bytes")
	default:
		refuse(w, http.StatusBadRequest, "malformed", "the body is not the expected JSON object: "+err.Error())
	}
	return false
}

// fail is the one table from errors to answers.
func (a *API) fail(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		refuse(w, http.StatusNotFound, "not-found", err.Error())
	case errors.Is(err, ledger.ErrKeyReused):
		refuse(w, http.StatusConflict, "key-reused", err.Error())
	case errors.Is(err, ledger.ErrNotRefundable):
		refuse(w, http.StatusConflict, "not-refundable", err.Error())
	default:
		a.Log.Error("the ledger failed", "error", err.Error())
		refuse(w, http.StatusServiceUnavailable, "unavailable", "the ledger cannot be used just now")
	}
}

// logged writes one line per request, health probes excepted, and also for dropped connections.
func (a *API) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			next.ServeHTTP(w, r)
			return
		}
		started := time.Now()
		recorder := &statusRecorder{ResponseWriter: w}
		defer func() {
			a.Log.LogAttrs(r.Context(), slog.LevelInfo, "request",
				slog.String("method", r.Method), slog.String("route", r.Pattern), slog.Int("status", recorder.status),
				slog.Float64("duration_ms", float64(time.Since(started).Microseconds())/1000))
		}()
		next.ServeHTTP(recorder, r)
	})
}

// statusRecorder remembers the status; 0 means that nothing was answered.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (s *statusRecorder) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap lets net/http reach the connection.
func (s *statusRecorder) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func chargeOf(e ledger.Entry) chargeAnswer {
	return chargeAnswer{
		Key: e.Key, ChargeID: e.ID, Status: e.Status, Reason: e.Reason, AmountMinor: e.AmountMinor,
		Currency: e.Currency, CreatedAt: e.CreatedAt.Format(timeFormat),
	}
}

func number(r *http.Request, name string, missing int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return missing, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the only error is a caller that left
}

func invalid(w http.ResponseWriter, detail string) {
	refuse(w, http.StatusUnprocessableEntity, "validation", detail)
}

func refuse(w http.ResponseWriter, status int, slug, detail string) {
	send(w, problem{Type: "/problems/" + slug, Title: http.StatusText(status), Status: status, Detail: detail})
}

func send(w http.ResponseWriter, p problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}
