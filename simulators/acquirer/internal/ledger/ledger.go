// Package ledger is the acquirer's durable book of charges and refunds: one SQLite table, one row an
// entry, never updated. It is the independent witness of what was charged.
package ledger

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

// Kinds of entry and their outcomes.
const (
	KindCharge = "charge"
	KindRefund = "refund"

	StatusApproved = "approved"
	StatusDeclined = "declined"
)

var (
	// ErrNotFound: no entry has this key.
	ErrNotFound = errors.New("no such charge")
	// ErrKeyReused: the key was used before for something else.
	ErrKeyReused = errors.New("the key was already used with other values")
	// ErrNotRefundable: the charge was declined, or the refunds would exceed it.
	ErrNotRefundable = errors.New("the charge was declined or less than this amount is left of it")
)

const schema = `
CREATE TABLE IF NOT EXISTS entries (
	seq          INTEGER PRIMARY KEY AUTOINCREMENT,
	kind         TEXT    NOT NULL CHECK (kind IN ('charge', 'refund')),
	key          TEXT    NOT NULL,
	id           TEXT    NOT NULL,
	charge_key   TEXT    NOT NULL,
	status       TEXT    NOT NULL CHECK (status IN ('approved', 'declined')),
	reason       TEXT    NOT NULL DEFAULT '',
	amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
	currency     TEXT    NOT NULL,
	method_token TEXT    NOT NULL DEFAULT '',
	reference    TEXT    NOT NULL DEFAULT '',
	created_at   INTEGER NOT NULL,
	UNIQUE (kind, key)
);
CREATE INDEX IF NOT EXISTS entries_refunds ON entries (charge_key) WHERE kind = 'refund';`

const columns = `seq, kind, key, id, charge_key, status, reason, amount_minor, currency,
	method_token, reference, created_at`

// Entry is one line of the book. A charge's ChargeKey is its own key.
type Entry struct {
	Seq         int64
	Kind        string
	Key         string
	ID          string
	ChargeKey   string
	Status      string
	Reason      string
	AmountMinor int64
	Currency    string
	MethodToken string
	Reference   string
	CreatedAt   time.Time
}

// Ledger is safe for concurrent use.
type Ledger struct {
	db     *sql.DB
	insert *sql.Stmt
	find   *sql.Stmt
}

// Open opens or creates the book in the SQLite file at path. Its errors are sentences for people.
func Open(ctx context.Context, path string) (*Ledger, error) {
	// FULL: a charge is on the disk before it is answered, so that even a power cut cannot unsay it.
	query := url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-1024)"},
		"_txlock": {"immediate"},
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path)}).String()+"?"+query.Encode())
	if err != nil {
		return nil, explain(err, path)
	}
	// SQLite has one writer: waiting for the one connection is fairer than polling a busy file.
	db.SetMaxOpenConns(1)
	ledger := &Ledger{db: db}
	if err := ledger.prepare(ctx); err != nil {
		return nil, errors.Join(explain(err, path), db.Close())
	}
	return ledger, nil
}

func (l *Ledger) prepare(ctx context.Context) error {
	var verdict string
	if err := l.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return errCorrupt
	}
	if _, err := l.db.ExecContext(ctx, schema); err != nil {
		return err
	}
	var err error
	l.insert, err = l.db.PrepareContext(ctx, `INSERT INTO entries (`+columns+`)
		VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, key) DO NOTHING`)
	if err != nil {
		return err
	}
	l.find, err = l.db.PrepareContext(ctx, `SELECT `+columns+` FROM entries WHERE kind = ? AND key = ?`)
	return err
}

// Close closes the file; a clean close folds the write-ahead log into it.
func (l *Ledger) Close() error { return l.db.Close() }

// Charge books a charge, or finds the one its key already stands for; first tells which.
// Values other than the booked ones are ErrKeyReused.
func (l *Ledger) Charge(ctx context.Context, want Entry) (booked Entry, first bool, err error) {
	want.Kind, want.ChargeKey = KindCharge, want.Key
	want.ID, want.CreatedAt = "ch_"+rand.Text(), now()
	result, err := l.insert.ExecContext(ctx, want.values()...)
	if err != nil {
		return Entry{}, false, err
	}
	if rows, err := result.RowsAffected(); err != nil {
		return Entry{}, false, err
	} else if rows == 1 {
		want.Seq, err = result.LastInsertId()
		return want, true, err
	}
	booked, err = l.ChargeByKey(ctx, want.Key)
	if err == nil && (booked.AmountMinor != want.AmountMinor || booked.Currency != want.Currency ||
		booked.MethodToken != want.MethodToken || booked.Reference != want.Reference) {
		err = ErrKeyReused
	}
	return booked, false, err
}

// ChargeByKey finds a charge or fails with ErrNotFound.
func (l *Ledger) ChargeByKey(ctx context.Context, key string) (Entry, error) {
	return scan(l.find.QueryRowContext(ctx, KindCharge, key))
}

// Refund books a refund of a part or the whole of a charge, or finds the one its key already stands
// for. It fails with ErrNotFound, ErrNotRefundable or ErrKeyReused.
func (l *Ledger) Refund(ctx context.Context, key, chargeKey string, amountMinor int64) (booked Entry, err error) {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return Entry{}, err
	}
	defer func() {
		if err != nil {
			_ = tx.Rollback()
		}
	}()
	find := tx.StmtContext(ctx, l.find)
	booked, err = scan(find.QueryRowContext(ctx, KindRefund, key))
	switch {
	case err == nil && (booked.ChargeKey != chargeKey || booked.AmountMinor != amountMinor):
		return Entry{}, ErrKeyReused
	case err == nil:
		return booked, tx.Commit()
	case !errors.Is(err, ErrNotFound):
		return Entry{}, err
	}
	charge, err := scan(find.QueryRowContext(ctx, KindCharge, chargeKey))
	if err != nil {
		return Entry{}, err
	}
	var refunded int64
	err = tx.QueryRowContext(ctx, `SELECT COALESCE(SUM(amount_minor), 0) FROM entries
		WHERE kind = 'refund' AND charge_key = ?`, chargeKey).Scan(&refunded)
	if err != nil {
		return Entry{}, err
	}
	if charge.Status != StatusApproved || amountMinor > charge.AmountMinor-refunded {
		return Entry{}, ErrNotRefundable
	}
	booked = Entry{
		Kind: KindRefund, Key: key, ID: "re_" + rand.Text(), ChargeKey: chargeKey, Status: StatusApproved,
		AmountMinor: amountMinor, Currency: charge.Currency, Reference: charge.Reference, CreatedAt: now(),
	}
	if _, err = tx.StmtContext(ctx, l.insert).ExecContext(ctx, booked.values()...); err != nil {
		return Entry{}, err
	}
	return booked, tx.Commit()
}

// List returns at most limit entries with a sequence number above after, oldest first.
func (l *Ledger) List(ctx context.Context, after int64, limit int) (entries []Entry, err error) {
	rows, err := l.db.QueryContext(ctx, `SELECT `+columns+` FROM entries WHERE seq > ? ORDER BY seq LIMIT ?`,
		after, limit)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		entry, err := scan(rows)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	return entries, rows.Err()
}

// Ping fails when the database cannot be read.
func (l *Ledger) Ping(ctx context.Context) error {
	var one int
	return l.db.QueryRowContext(ctx, "SELECT 1").Scan(&one)
}

// values are the columns after seq, in order.
func (e Entry) values() []any {
	return []any{e.Kind, e.Key, e.ID, e.ChargeKey, e.Status, e.Reason, e.AmountMinor, e.Currency,
		e.MethodToken, e.Reference, e.CreatedAt.UnixMicro()}
}

func scan(row interface{ Scan(...any) error }) (Entry, error) {
	var entry Entry
	var createdMicros int64
	err := row.Scan(&entry.Seq, &entry.Kind, &entry.Key, &entry.ID, &entry.ChargeKey, &entry.Status,
		&entry.Reason, &entry.AmountMinor, &entry.Currency, &entry.MethodToken, &entry.Reference, &createdMicros)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	entry.CreatedAt = time.UnixMicro(createdMicros).UTC()
	return entry, err
}

// now has the precision that is stored, so that the first answer and a repeated one are equal.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

var errCorrupt = errors.New("the check of the file failed")

// explain turns SQLite's codes into sentences that say what to do.
func explain(err error, path string) error {
	if errors.Is(err, errCorrupt) {
		return fmt.Errorf("%s is damaged; move it away or restore a backup, then start again", path)
	}
	var coded *sqlite.Error
	if !errors.As(err, &coded) {
		return fmt.Errorf("cannot open %s: %w", path, err)
	}
	switch coded.Code() & 0xff {
	case sqlitelib.SQLITE_NOTADB, sqlitelib.SQLITE_CORRUPT:
		return fmt.Errorf("%s is not a SQLite database or is damaged; move it away or restore a backup,"+
			" then start again", path)
	case sqlitelib.SQLITE_CANTOPEN, sqlitelib.SQLITE_READONLY, sqlitelib.SQLITE_PERM:
		return fmt.Errorf("cannot write %s; make its directory exist and be writable, or set DATABASE_URL", path)
	case sqlitelib.SQLITE_FULL, sqlitelib.SQLITE_IOERR:
		return fmt.Errorf("cannot write %s: the disk is full or failing; free some space or set DATABASE_URL", path)
	case sqlitelib.SQLITE_BUSY:
		return fmt.Errorf("%s is locked by another process; stop it or set DATABASE_URL", path)
	}
	return fmt.Errorf("cannot open %s: %s", path, strings.TrimSpace(coded.Error()))
}
