// Package store keeps orders in SQLite or PostgreSQL.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed migrations
var migrations embed.FS

// ErrNotMigrated: the schema is older than this program.
var ErrNotMigrated = errors.New("the database schema is not up to date")

// Store implements order.Store upon database/sql.
type Store struct {
	write  *sql.DB // SQLite: a single connection, so that writers queue here and never meet SQLITE_BUSY
	read   *sql.DB
	apart  func() (*sql.DB, error) // opens a pool of one connection that may write
	driver string
	name   string // what the database is called in messages: the file, or the host
	stmt   statements
}

// Open connects to the database. driver is "sqlite" with a file path or "pgx" with a URL. The
// error is one sentence that says what to do.
func Open(ctx context.Context, driver, dsn string) (*Store, error) {
	s := &Store{driver: driver}
	var err error
	if driver == "sqlite" {
		if err = s.openSQLite(dsn); err == nil {
			err = s.write.PingContext(ctx) // makes the file
		}
	} else {
		err = s.openPostgres(dsn)
	}
	if err == nil {
		err = s.Ping(ctx)
	}
	if err != nil {
		return nil, errors.Join(s.explain(err), s.Close())
	}
	return s, nil
}

func (s *Store) openSQLite(path string) (err error) {
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	s.name = path
	// synchronous(NORMAL): in WAL mode a commit survives every crash of the process. Only a crash
	// of the machine may lose the last commits, never their order. FULL costs an fsync for each of
	// the four commits of a checkout (2.5 ms each where this was measured): choose PostgreSQL,
	// which shares one fsync among concurrent commits, where power loss matters.
	open := func(pragmas ...string) (*sql.DB, error) {
		q := url.Values{"_txlock": {"immediate"}, "_pragma": pragmas}
		dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}
		return sql.Open("sqlite", dsn.String())
	}
	s.apart = func() (*sql.DB, error) {
		db, err := open("busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)")
		if err == nil {
			db.SetMaxOpenConns(1)
		}
		return db, err
	}
	if s.write, err = s.apart(); err != nil {
		return err
	}
	if s.read, err = open("busy_timeout(5000)", "query_only(1)"); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(4)
	s.read.SetMaxIdleConns(4)
	return nil
}

func (s *Store) openPostgres(dsn string) error {
	s.name = "PostgreSQL"
	if u, err := url.Parse(dsn); err == nil {
		s.name += " at " + u.Host
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return err
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	// A statement that waits longer than any caller does is given up by the server.
	config.RuntimeParams["statement_timeout"] = "10000"
	s.apart = func() (*sql.DB, error) {
		db := stdlib.OpenDB(*config)
		db.SetMaxOpenConns(1)
		return db, nil
	}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	db.SetConnMaxIdleTime(5 * time.Minute)
	s.write, s.read = db, db
	return nil
}

// Close closes the connections.
func (s *Store) Close() error {
	var errs []error
	if s.write != nil {
		errs = append(errs, s.write.Close())
	}
	if s.read != nil && s.read != s.write {
		errs = append(errs, s.read.Close())
	}
	return errors.Join(errs...)
}

// Ping tells whether the database answers. It writes nothing.
func (s *Store) Ping(ctx context.Context) error {
	// Reading the schema, unlike opening the file, notices that it is not a database.
	query := "SELECT 1"
	if s.driver == "sqlite" {
		query = "SELECT count(*) FROM sqlite_schema"
	}
	var n int
	return s.read.QueryRowContext(ctx, query).Scan(&n)
}

// Migrate brings the schema up to date.
func (s *Store) Migrate(ctx context.Context) error {
	p, err := s.migrator()
	if err == nil {
		_, err = p.Up(ctx)
	}
	if err != nil {
		return s.explain(fmt.Errorf("migrating the database: %w", err))
	}
	return nil
}

// Migrated returns ErrNotMigrated while migrations are pending.
func (s *Store) Migrated(ctx context.Context) error {
	p, err := s.migrator()
	if err != nil {
		return err
	}
	pending, err := p.HasPending(ctx)
	if err != nil {
		return s.explain(err)
	}
	if pending {
		return fmt.Errorf("%w: run `order-service migrate`", ErrNotMigrated)
	}
	return nil
}

func (s *Store) migrator() (*goose.Provider, error) {
	dialect, dir := goose.DialectSQLite3, "migrations/sqlite"
	opts := []goose.ProviderOption{goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true)}
	if s.driver == "pgx" {
		dialect, dir = goose.DialectPostgres, "migrations/postgres"
		locker, err := lock.NewPostgresSessionLocker() // several replicas may start at once
		if err != nil {
			return nil, err
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	files, err := fs.Sub(migrations, dir)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(dialect, s.write, files, opts...)
}

// explain turns the failures that an operator can mend into a sentence that says how.
func (s *Store) explain(err error) error {
	var lite *sqlite.Error
	var pg *pgconn.PgError
	var pgConnect *pgconn.ConnectError
	switch {
	case errors.As(err, &lite):
		return s.explainSQLite(lite, err)
	case errors.As(err, &pg):
		return fmt.Errorf("%s refused: %s (%s); check DATABASE_URL", s.name, pg.Message, pg.Code)
	case errors.As(err, &pgConnect):
		cause, _, _ := strings.Cut(errors.Unwrap(pgConnect).Error(), "\n") // one line for every address tried
		return fmt.Errorf("%s cannot be reached; start it or correct DATABASE_URL: %s", s.name, cause)
	}
	return err
}

func (s *Store) explainSQLite(lite *sqlite.Error, err error) error {
	dir := filepath.Dir(s.name)
	switch lite.Code() & 0xff { // the low byte is the primary result code
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("%s is not a usable database (%s); move it away or restore a backup",
			s.name, lite.Error())
	case sqlite3.SQLITE_CANTOPEN:
		if _, statErr := os.Stat(dir); errors.Is(statErr, fs.ErrNotExist) {
			return fmt.Errorf("%s cannot be opened: the directory %s does not exist; create it or set DATABASE_URL",
				s.name, dir)
		}
		return fmt.Errorf("%s cannot be opened; make the directory %s writable or set DATABASE_URL", s.name, dir)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return fmt.Errorf("%s cannot be written; make it and the directory %s writable or set DATABASE_URL",
			s.name, dir)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("the disk of %s is full; free some space or set DATABASE_URL", s.name)
	case sqlite3.SQLITE_IOERR:
		if free, ok := freeBytes(dir); ok && free < 1<<20 {
			return fmt.Errorf("the disk of %s is full; free some space or set DATABASE_URL", s.name)
		}
	case sqlite3.SQLITE_BUSY:
		return fmt.Errorf("%s is locked by another process; stop that process or set DATABASE_URL", s.name)
	}
	return err
}

func freeBytes(dir string) (uint64, bool) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, false
	}
	return fs.Bavail * uint64(fs.Bsize), true
}
