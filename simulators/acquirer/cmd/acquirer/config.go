package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// config is read from the environment only.
type config struct {
	host          string
	port          int
	databasePath  string
	slowFor       time.Duration
	shutdownGrace time.Duration
	shutdownDelay time.Duration
	logLevel      slog.Level
	maxBodyBytes  int64
	adminToken    string // empty: the fault endpoints do not exist
	faultsFile    string
}

// configError names the variable that holds a bad value.
type configError struct{ variable, problem, got string }

func (e *configError) Error() string {
	return fmt.Sprintf("%s: %s (got '%s')", e.variable, e.problem, e.got)
}

func loadConfig() (config, error) {
	c := config{host: env("HOST", "127.0.0.1")}
	numbers := []struct {
		variable, missing string
		low, high         int64
		set               func(int64)
	}{
		{"PORT", "8004", 1, 65535, func(n int64) { c.port = int(n) }},
		{"SLOW_MS", "2000", 0, 600_000, func(n int64) { c.slowFor = time.Duration(n) * time.Millisecond }},
		{"MAX_BODY_BYTES", "1048576", 1, 1 << 30, func(n int64) { c.maxBodyBytes = n }},
		{"SHUTDOWN_GRACE_S", "20", 0, 3600, func(n int64) { c.shutdownGrace = time.Duration(n) * time.Second }},
		{"SHUTDOWN_DELAY_S", "0", 0, 3600, func(n int64) { c.shutdownDelay = time.Duration(n) * time.Second }},
	}
	for _, n := range numbers {
		text := env(n.variable, n.missing)
		value, err := strconv.ParseInt(text, 10, 64)
		if err != nil || value < n.low || value > n.high {
			return c, &configError{n.variable, fmt.Sprintf("must be a whole number from %d to %d", n.low, n.high), text}
		}
		n.set(value)
	}
	level := env("LOG_LEVEL", "info")
	if err := c.logLevel.UnmarshalText([]byte(strings.Replace(strings.ToUpper(level), "WARNING", "WARN", 1))); err != nil {
		return c, &configError{"LOG_LEVEL", "must be debug, info, warning or error", level}
	}
	databaseURL := env("DATABASE_URL", "sqlite:///acquirer.db")
	path, found := strings.CutPrefix(databaseURL, "sqlite:///")
	if !found || path == "" {
		// Whatever is wrong with it, it may hold a password: do not repeat it.
		return c, &configError{"DATABASE_URL", "must be sqlite:///<file>", "another form"}
	}
	c.databasePath = path
	c.faultsFile = env("FAULTS_FILE", filepath.Join(filepath.Dir(path), "faults-acquirer.json"))
	c.adminToken = os.Getenv("ADMIN_TOKEN")
	if file := os.Getenv("ADMIN_TOKEN_FILE"); file != "" {
		raw, err := os.ReadFile(file)
		c.adminToken = strings.TrimSpace(string(raw))
		if err != nil || c.adminToken == "" {
			return c, &configError{"ADMIN_TOKEN_FILE", "must be a file that holds the token", file}
		}
	}
	return c, nil
}

func env(variable, missing string) string {
	if value := os.Getenv(variable); value != "" {
		return value
	}
	return missing
}
