// Package config reads the settings of the service from its environment.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Service is the name under which the process speaks: in logs, telemetry and error messages.
const Service = "order-service"

// Config holds every setting; README.md lists the variables and their defaults.
type Config struct {
	Host            string
	Port            int
	Database        Database
	AdminToken      string // empty: the fault endpoints do not exist
	FaultsFile      string
	MigrateOnStart  bool
	ShutdownGrace   time.Duration
	ShutdownDelay   time.Duration
	LogLevel        slog.Level
	MaxBodyBytes    int64
	ProductURL      *url.URL
	PaymentURL      *url.URL
	CheckoutTimeout time.Duration // the longest a caller is kept waiting for a checkout
	PaymentWait     time.Duration // how long one payment request may wait for the acquirer
	PaymentGiveUp   time.Duration // how long a payment's outcome may stay unknown
	ReservationTTL  time.Duration // how long stock is held for an order that is not committed
	MaxCheckouts    uint          // at once; more are refused
	ConnectionAge   time.Duration // after it a connection is replaced, so that new replicas get theirs; 0: never
}

// Address is host:port as net.Listen takes it.
func (c Config) Address() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }

// Database says where the orders are kept.
type Database struct {
	Driver string // "sqlite" or "pgx"
	DSN    string // a file path for sqlite, a connection URL for pgx
}

// Load reads the settings through lookup (os.LookupEnv in production). The error names every bad
// variable, one to a line, what was expected and what was found.
func Load(lookup func(string) (string, bool)) (Config, error) {
	r := reader{lookup: lookup}
	c := Config{
		Host:            r.text("HOST", "127.0.0.1"),
		Port:            int(r.integer("PORT", 8002, 1, 65535)),
		Database:        r.database("DATABASE_URL", "sqlite:///order.db"),
		MigrateOnStart:  r.boolean("MIGRATE_ON_START", true),
		ShutdownGrace:   r.duration("SHUTDOWN_GRACE_S", 20*time.Second, time.Second, time.Hour),
		ShutdownDelay:   r.duration("SHUTDOWN_DELAY_S", 0, 0, time.Hour),
		LogLevel:        r.level("LOG_LEVEL"),
		MaxBodyBytes:    r.integer("MAX_BODY_BYTES", 1<<20, 1024, 1<<30),
		ProductURL:      r.url("PRODUCT_URL", "http://127.0.0.1:8001"),
		PaymentURL:      r.url("PAYMENT_URL", "http://127.0.0.1:8003"),
		CheckoutTimeout: r.duration("CHECKOUT_TIMEOUT_S", 10*time.Second, 100*time.Millisecond, time.Minute),
		PaymentWait:     r.duration("PAYMENT_WAIT_S", 3*time.Second, time.Second, 30*time.Second),
		PaymentGiveUp:   r.duration("PAYMENT_GIVE_UP_S", 15*time.Minute, 5*time.Second, 24*time.Hour),
		ReservationTTL:  r.duration("RESERVATION_TTL_S", 5*time.Minute, time.Second, time.Hour),
		MaxCheckouts:    uint(r.integer("MAX_CONCURRENT_CHECKOUTS", 128, 1, 100_000)),
		ConnectionAge:   r.duration("CONNECTION_MAX_AGE_S", 0, 0, time.Hour),
	}
	c.AdminToken = r.secret("ADMIN_TOKEN")
	c.FaultsFile = r.text("FAULTS_FILE", defaultFaultsFile(c.Database))
	return c, errors.Join(r.errs...)
}

func defaultFaultsFile(db Database) string {
	dir := os.TempDir()
	if db.Driver == "sqlite" {
		dir = filepath.Dir(db.DSN)
	}
	return filepath.Join(dir, "faults-"+Service+".json")
}

type reader struct {
	lookup func(string) (string, bool)
	errs   []error
}

// get treats an empty variable as unset, as the OpenTelemetry specification does for its own.
func (r *reader) get(name string) (string, bool) {
	v, ok := r.lookup(name)
	return v, ok && v != ""
}

func (r *reader) fail(name, expected, got string) {
	r.errs = append(r.errs, fmt.Errorf("%s: %s (got '%s')", name, expected, got))
}

func (r *reader) text(name, fallback string) string {
	if v, ok := r.get(name); ok {
		return v
	}
	return fallback
}

func (r *reader) integer(name string, fallback, low, high int64) int64 {
	v, ok := r.get(name)
	if !ok {
		return fallback
	}
	n, err := strconv.ParseInt(v, 10, 64)
	switch {
	case err != nil:
		r.fail(name, "Input should be a valid integer", v)
	case n < low:
		r.fail(name, fmt.Sprintf("Input should be greater than or equal to %d", low), v)
	case n > high:
		r.fail(name, fmt.Sprintf("Input should be less than or equal to %d", high), v)
	}
	return n
}

func (r *reader) duration(name string, fallback, low, high time.Duration) time.Duration {
	v, ok := r.get(name)
	if !ok {
		return fallback
	}
	s, err := strconv.ParseFloat(v, 64)
	d := time.Duration(s * float64(time.Second))
	switch {
	case err != nil || s != s:
		r.fail(name, "Input should be a valid number of seconds", v)
	case s < low.Seconds():
		r.fail(name, fmt.Sprintf("Input should be greater than or equal to %g", low.Seconds()), v)
	case s > high.Seconds():
		r.fail(name, fmt.Sprintf("Input should be less than or equal to %g", high.Seconds()), v)
	}
	return d
}

func (r *reader) boolean(name string, fallback bool) bool {
	v, ok := r.get(name)
	if !ok {
		return fallback
	}
	switch strings.ToLower(v) {
	case "1", "true", "yes", "on":
		return true
	case "0", "false", "no", "off":
		return false
	}
	r.fail(name, "Input should be true or false", v)
	return fallback
}

func (r *reader) level(name string) slog.Level {
	v, ok := r.get(name)
	if !ok {
		return slog.LevelInfo
	}
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn,
		"warn": slog.LevelWarn, "error": slog.LevelError,
	}
	level, known := levels[strings.ToLower(v)]
	if !known {
		r.fail(name, "Input should be debug, info, warning or error", v)
	}
	return level
}

func (r *reader) url(name, fallback string) *url.URL {
	v := r.text(name, fallback)
	u, err := url.Parse(v)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		r.fail(name, "Input should be a URL like "+fallback, v)
		return &url.URL{}
	}
	return u
}

func (r *reader) database(name, fallback string) Database {
	v := r.text(name, fallback)
	if path, ok := strings.CutPrefix(v, "sqlite:///"); ok && path != "" {
		return Database{Driver: "sqlite", DSN: path}
	}
	if u, err := url.Parse(v); err == nil && u.Host != "" &&
		(u.Scheme == "postgresql" || u.Scheme == "postgres") {
		return Database{Driver: "pgx", DSN: v}
	}
	const expected = "Input should be sqlite:///relative.db, sqlite:////absolute.db " +
		"or postgresql://user:password@host:port/database"
	shown, _, _ := strings.Cut(v, ":") // the rest may hold a password
	r.fail(name, expected, shown+":…")
	return Database{}
}

// secret reads NAME_FILE, which wins over NAME.
func (r *reader) secret(name string) string {
	path, ok := r.get(name + "_FILE")
	if !ok {
		return r.text(name, "")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		r.fail(name+"_FILE", "Input should be a readable file: "+err.Error(), path)
		return ""
	}
	token := strings.TrimSpace(string(raw))
	if token == "" {
		r.fail(name+"_FILE", "Input should be a file that holds a token", path)
	}
	return token
}
