package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

func TestDefaults(t *testing.T) {
	c, err := Load(lookup(nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.Address() != "127.0.0.1:8002" || c.Database != (Database{"sqlite", "order.db"}) ||
		c.FaultsFile != "faults-order-service.json" || !c.MigrateOnStart ||
		c.PaymentWait != 3*time.Second || c.PaymentGiveUp != 15*time.Minute ||
		c.ReservationTTL != 5*time.Minute || c.MaxCheckouts != 128 ||
		c.ShutdownGrace != 20*time.Second || c.MaxBodyBytes != 1<<20 || c.AdminToken != "" {
		t.Errorf("unexpected defaults: %+v", c)
	}
}

func TestBadValuesAreNamed(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"PORT", "99999", "PORT: Input should be less than or equal to 65535 (got '99999')"},
		{"PORT", "0", "PORT: Input should be greater than or equal to 1 (got '0')"},
		{"PORT", "http", "PORT: Input should be a valid integer (got 'http')"},
		{"DATABASE_URL", "mysql://u:secret@h/d", "DATABASE_URL: Input should be sqlite:///relative.db"},
		{"DATABASE_URL", "sqlite:///", "DATABASE_URL: "},
		{"PRODUCT_URL", "localhost", "PRODUCT_URL: Input should be a URL like http://127.0.0.1:8001 (got 'localhost')"},
		{"PAYMENT_URL", "ftp://x", "PAYMENT_URL: Input should be a URL"},
		{"SHUTDOWN_GRACE_S", "soon", "SHUTDOWN_GRACE_S: Input should be a valid number of seconds (got 'soon')"},
		{"SHUTDOWN_GRACE_S", "NaN", "SHUTDOWN_GRACE_S: "},
		{"SHUTDOWN_DELAY_S", "-1", "SHUTDOWN_DELAY_S: Input should be greater than or equal to 0 (got '-1')"},
		{"PAYMENT_GIVE_UP_S", "4", "PAYMENT_GIVE_UP_S: Input should be greater than or equal to 5 (got '4')"},
		{"PAYMENT_GIVE_UP_S", "86401", "PAYMENT_GIVE_UP_S: Input should be less than or equal to 86400 (got '86401')"},
		{"RESERVATION_TTL_S", "0.5", "RESERVATION_TTL_S: Input should be greater than or equal to 1 (got '0.5')"},
		{"MAX_CONCURRENT_CHECKOUTS", "0", "MAX_CONCURRENT_CHECKOUTS: Input should be greater than or equal to 1 (got '0')"},
		{"MIGRATE_ON_START", "maybe", "MIGRATE_ON_START: Input should be true or false (got 'maybe')"},
		{"LOG_LEVEL", "loud", "LOG_LEVEL: Input should be debug, info, warning or error (got 'loud')"},
		{"ADMIN_TOKEN_FILE", "/nowhere/token", "ADMIN_TOKEN_FILE: Input should be a readable file: no such file or directory (got '/nowhere/token')"},
	} {
		_, err := Load(lookup(map[string]string{c.name: c.value}))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s=%s: got %v, want %s", c.name, c.value, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the message shows a password: %v", c.name, err)
		}
	}
}

func TestAllBadValuesAreNamedAtOnce(t *testing.T) {
	_, err := Load(lookup(map[string]string{"PORT": "x", "LOG_LEVEL": "y"}))
	if err == nil || !strings.Contains(err.Error(), "PORT") || !strings.Contains(err.Error(), "LOG_LEVEL") {
		t.Errorf("got %v", err)
	}
}

func TestAdminTokenFileWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(lookup(map[string]string{"ADMIN_TOKEN": "from-env", "ADMIN_TOKEN_FILE": path}))
	if err != nil || c.AdminToken != "from-file" {
		t.Errorf("got %q, %v", c.AdminToken, err)
	}
}

func TestDatabaseURL(t *testing.T) {
	for url, want := range map[string]Database{
		"sqlite:///order.db":            {"sqlite", "order.db"},
		"sqlite:////var/lib/order.db":   {"sqlite", "/var/lib/order.db"},
		"postgresql://u:p@h:5432/prove": {"pgx", "postgresql://u:p@h:5432/prove"},
	} {
		c, err := Load(lookup(map[string]string{"DATABASE_URL": url}))
		if err != nil || c.Database != want {
			t.Errorf("%s: got %+v, %v", url, c.Database, err)
		}
	}
}
