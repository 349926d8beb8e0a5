// Package postgrestest runs Debian's PostgreSQL for tests, on a data directory and port of its own.
package postgrestest

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver

	"prove/order-service/internal/porttest"
)

var errNoPostgres = errors.New("no PostgreSQL server is installed")

// postgres is one server for all tests of a package; every test has a database of its own.
var postgres = struct {
	start sync.Once
	err   error
	dir   string
	port  string
	cmd   *exec.Cmd
	next  int
	mu    sync.Mutex
}{}

// Stop ends the server if one was started; TestMain calls it.
func Stop() {
	if postgres.cmd != nil {
		// SIGINT is PostgreSQL's fast shutdown; a server that already ended is as good.
		_ = postgres.cmd.Process.Signal(syscall.SIGINT)
		_ = postgres.cmd.Wait()
	}
	if postgres.dir != "" {
		_ = os.RemoveAll(postgres.dir)
	}
}

// New returns the URL of an empty database, or skips the test where PostgreSQL is not installed.
func New(t *testing.T) string {
	postgres.start.Do(func() { postgres.err = startPostgres() })
	if errors.Is(postgres.err, errNoPostgres) {
		t.Skip("skipped: " + postgres.err.Error() + " (Debian: postgresql-15)")
	}
	if postgres.err != nil {
		t.Fatal(postgres.err)
	}
	postgres.mu.Lock()
	postgres.next++
	name := fmt.Sprintf("orders%d", postgres.next)
	postgres.mu.Unlock()
	if err := execute("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	return postgresURL(name)
}

func execute(statement string) error {
	db, err := sql.Open("pgx", postgresURL("postgres"))
	if err != nil {
		return err
	}
	_, err = db.Exec(statement)
	return errors.Join(err, db.Close())
}

func postgresURL(database string) string {
	return fmt.Sprintf("postgresql://postgres@127.0.0.1:%s/%s?sslmode=disable", postgres.port, database)
}

func startPostgres() error {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return errNoPostgres
	}
	bin := filepath.Dir(found[len(found)-1])
	// Not t.TempDir: the server's user must be able to reach it.
	if postgres.dir, err = os.MkdirTemp("", "order-postgres-"); err != nil {
		return err
	}
	as, err := postgresUser(postgres.dir)
	if err != nil {
		return err
	}
	data := filepath.Join(postgres.dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = postgres.dir, as
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	postgres.port = porttest.Free()
	var log bytes.Buffer
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1",
		"-p", postgres.port, "-k", postgres.dir, "-c", "fsync=off", "-c", "max_connections=200")
	server.Dir, server.SysProcAttr, server.Stderr = postgres.dir, as, &log
	if err := server.Start(); err != nil {
		return err
	}
	postgres.cmd = server
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := execute("SELECT 1")
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("postgres did not start: %w: %s", err, log.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// postgresUser makes root run the server as its own user, as it demands, and gives it dir.
func postgresUser(dir string) (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, errNoPostgres
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}
