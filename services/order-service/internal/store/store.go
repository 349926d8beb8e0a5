package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"prove/order-service/internal/order"
)

const columns = `id, customer_id, idempotency_key, status, step, step_since_us, attempts, owner,
	due_at_us, put_off_at_us, version, payment_method, currency, lines, total_minor, payment_id,
	failure, traceparent, created_at_us, updated_at_us, expected_total_minor`

// $n is understood by both databases. Triggers keep order_steps: see migrations.
const (
	insertOrder = `INSERT INTO orders (` + columns + `, fingerprint) VALUES
		($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
		ON CONFLICT (customer_id, idempotency_key) DO NOTHING`
	updateOrder = `UPDATE orders SET status = $1, step = $2, step_since_us = $3, attempts = $4,
		owner = $5, due_at_us = $6, put_off_at_us = $7, version = $8, currency = $9, lines = $10,
		total_minor = $11, payment_id = $12, failure = $13, updated_at_us = $14`
	ofVersion  = ` WHERE id = $15 AND version = $16`
	saveOrder  = updateOrder + ofVersion
	saveAnswer = updateOrder + `, answer_status = $17, answer_body = $18` + ofVersion
	saveFreed  = updateOrder + `, idempotency_key = NULL` + ofVersion

	selectKey = `SELECT id, fingerprint, answer_status, created_at_us FROM orders
		WHERE customer_id = $1 AND idempotency_key = $2`
	freeKey     = `UPDATE orders SET idempotency_key = NULL WHERE id = $1`
	selectOrder = `SELECT ` + columns + ` FROM orders WHERE id = $1`
	selectPrior = `SELECT ` + columns + `, answer_status, answer_body FROM orders WHERE id = $1`
	listOrders  = `SELECT ` + columns + ` FROM orders WHERE customer_id = $1 AND id < $2
		ORDER BY id DESC LIMIT $3`
	listStates = `SELECT at_us, status, step FROM order_steps WHERE order_id = $1 ORDER BY seq`
	beat       = `INSERT INTO workers (id, alive_until_us) VALUES ($1, $2)
		ON CONFLICT (id) DO UPDATE SET alive_until_us = excluded.alive_until_us`
	retire = `DELETE FROM workers WHERE id = $1`
	// $1 is the worker, $2 now, $3 the horizon. Of times beyond it a clock that was set back is to
	// blame: waiting for them could take for ever.
	claimable = ` FROM orders WHERE step <> '' AND owner <> $1 AND (
		(owner = '' AND (due_at_us <= $2 OR due_at_us > $3)) OR
		(owner <> '' AND owner NOT IN (SELECT id FROM workers WHERE alive_until_us BETWEEN $2 AND $3)))`
	anyClaimable = `SELECT 1` + claimable + ` LIMIT 1`
	// A crash leaves attempts at 0 in a step that may have been taken: claiming makes it 1.
	claimOrders = `WITH due AS MATERIALIZED (SELECT id` + claimable + ` ORDER BY due_at_us LIMIT $4 %s)
		UPDATE orders SET owner = $1, version = version + 1,
			put_off_at_us = COALESCE(put_off_at_us, updated_at_us),
			attempts = CASE WHEN attempts = 0 THEN 1 ELSE attempts END
		WHERE id IN (SELECT id FROM due) RETURNING ` + columns
	countBacklog = `SELECT status, count(*), min(created_at_us) FROM orders WHERE step <> '' GROUP BY status`
	forgetKeys   = `UPDATE orders SET idempotency_key = NULL, answer_body = NULL WHERE id IN (
		SELECT id FROM orders WHERE created_at_us < $1 AND idempotency_key IS NOT NULL
			AND answer_status IS NOT NULL LIMIT $2)`
	forgetWorkers = `DELETE FROM workers WHERE alive_until_us < $1`
)

type statements struct{ insertOrder, saveOrder, saveAnswer, selectOrder *sql.Stmt }

// Prepare compiles the statements of the hot path; the schema must be there.
func (s *Store) Prepare(ctx context.Context) error {
	for _, p := range []struct {
		stmt  **sql.Stmt
		db    *sql.DB
		query string
	}{
		{&s.stmt.insertOrder, s.write, insertOrder},
		{&s.stmt.saveOrder, s.write, saveOrder},
		{&s.stmt.saveAnswer, s.write, saveAnswer},
		{&s.stmt.selectOrder, s.read, selectOrder},
	} {
		stmt, err := p.db.PrepareContext(ctx, p.query)
		if err != nil {
			return s.explain(err)
		}
		*p.stmt = stmt
	}
	return nil
}

var _ order.Store = (*Store)(nil)

// Create implements order.Store.
func (s *Store) Create(ctx context.Context, o *order.Order, fingerprint []byte, keysSince time.Time) (*order.Prior, error) {
	ctx = context.WithoutCancel(ctx)
	lines, failure, err := documents(o)
	if err != nil {
		return nil, err
	}
	for {
		res, err := s.stmt.insertOrder.ExecContext(ctx, o.ID, o.CustomerID, o.Key,
			string(o.Status), string(o.Step), o.StepSince.UnixMicro(), o.Attempts, o.Owner,
			o.DueAt.UnixMicro(), orNull(o.PutOffAt), 1, o.PaymentMethod, o.Currency, lines,
			o.TotalMinor, o.PaymentID, failure, o.TraceParent, o.CreatedAt.UnixMicro(),
			o.UpdatedAt.UnixMicro(), o.ExpectedTotal, fingerprint)
		made := int64(0)
		if err == nil {
			made, err = res.RowsAffected()
		}
		if err != nil {
			return nil, fmt.Errorf("recording an order: %w", err)
		}
		if made == 1 {
			o.Version = 1
			return nil, nil
		}
		prior, err := s.Known(ctx, o.CustomerID, o.Key, fingerprint, keysSince)
		if prior != nil || err != nil {
			return prior, err
		}
		// The key was freed meanwhile, or is too old: it is ours now.
	}
}

// Known implements order.Store.
func (s *Store) Known(ctx context.Context, customer, key string, fingerprint []byte, since time.Time) (*order.Prior, error) {
	var (
		id       string
		seen     []byte
		answered sql.NullInt64
		created  int64
	)
	err := s.write.QueryRowContext(ctx, selectKey, customer, key).Scan(&id, &seen, &answered, &created)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading an idempotency key: %w", err)
	}
	if answered.Valid && created < since.UnixMicro() {
		if _, err := s.write.ExecContext(ctx, freeKey, id); err != nil {
			return nil, fmt.Errorf("freeing an old idempotency key: %w", err)
		}
		return nil, nil
	}
	if !bytes.Equal(seen, fingerprint) {
		return nil, order.ErrKeyReused
	}
	return s.Prior(ctx, id)
}

// Prior implements order.Store.
func (s *Store) Prior(ctx context.Context, id string) (*order.Prior, error) {
	var status sql.NullInt64
	var body []byte
	o, err := scan(s.read.QueryRowContext(context.WithoutCancel(ctx), selectPrior, id), &status, &body)
	if err != nil {
		return nil, fmt.Errorf("reading order %s and its answer: %w", id, err)
	}
	p := &order.Prior{Order: o}
	if status.Valid {
		p.Answer = &order.Answer{Status: int(status.Int64), Body: body, Final: true}
	}
	return p, nil
}

// Save implements order.Store.
func (s *Store) Save(ctx context.Context, o *order.Order, answer *order.Answer) error {
	ctx = context.WithoutCancel(ctx)
	lines, failure, err := documents(o)
	if err != nil {
		return err
	}
	args := []any{string(o.Status), string(o.Step), o.StepSince.UnixMicro(), o.Attempts, o.Owner,
		o.DueAt.UnixMicro(), orNull(o.PutOffAt), o.Version + 1, o.Currency, lines, o.TotalMinor,
		o.PaymentID, failure, o.UpdatedAt.UnixMicro(), o.ID, o.Version}
	var res sql.Result
	switch {
	case answer == nil:
		res, err = s.stmt.saveOrder.ExecContext(ctx, args...)
	case answer.Final:
		res, err = s.stmt.saveAnswer.ExecContext(ctx, append(args, answer.Status, answer.Body)...)
	default:
		res, err = s.write.ExecContext(ctx, saveFreed, args...)
	}
	saved := int64(0)
	if err == nil {
		saved, err = res.RowsAffected()
	}
	if err == nil && saved == 0 {
		err = order.ErrConflict
	}
	if err != nil {
		return fmt.Errorf("recording order %s: %w", o.ID, err)
	}
	o.Version++
	return nil
}

func orNull(t time.Time) sql.NullInt64 {
	if t.IsZero() {
		return sql.NullInt64{}
	}
	return sql.NullInt64{Int64: t.UnixMicro(), Valid: true}
}

// Get implements order.Store.
func (s *Store) Get(ctx context.Context, id string) (*order.Order, error) {
	o, err := scan(s.stmt.selectOrder.QueryRowContext(ctx, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, order.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading order %s: %w", id, err)
	}
	return o, nil
}

// List implements order.Store.
func (s *Store) List(ctx context.Context, customer, before string, limit int) ([]*order.Order, error) {
	if before == "" {
		before = "z" // after every id: they begin with a hexadecimal digit
	}
	orders, err := collect(s.read.QueryContext(ctx, listOrders, customer, before, limit))
	if err != nil {
		return nil, fmt.Errorf("listing orders: %w", err)
	}
	return orders, nil
}

// States implements order.Store.
func (s *Store) States(ctx context.Context, id string) ([]order.State, error) {
	rows, err := s.read.QueryContext(ctx, listStates, id)
	if err != nil {
		return nil, fmt.Errorf("reading the states of order %s: %w", id, err)
	}
	defer rows.Close()
	var states []order.State
	for rows.Next() {
		var st order.State
		var at int64
		if err := rows.Scan(&at, &st.Status, &st.Step); err != nil {
			return nil, fmt.Errorf("reading the states of order %s: %w", id, err)
		}
		st.At = utc(at)
		states = append(states, st)
	}
	return states, rows.Err()
}

// Beat implements order.Store.
func (s *Store) Beat(ctx context.Context, worker string, until time.Time) error {
	_, err := s.write.ExecContext(ctx, beat, worker, until.UnixMicro())
	return err
}

// Retire implements order.Store.
func (s *Store) Retire(ctx context.Context, worker string) error {
	_, err := s.write.ExecContext(ctx, retire, worker)
	return err
}

// Claim implements order.Store.
func (s *Store) Claim(ctx context.Context, worker string, now, horizon time.Time, limit int) ([]*order.Order, error) {
	// Mostly nothing is due: do not take the write lock to learn that.
	var one int
	err := s.read.QueryRowContext(ctx, anyClaimable, worker, now.UnixMicro(), horizon.UnixMicro()).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for orders that are due: %w", err)
	}
	skip := ""
	if s.driver == "pgx" {
		skip = "FOR UPDATE SKIP LOCKED"
	}
	orders, err := collect(s.write.QueryContext(context.WithoutCancel(ctx), fmt.Sprintf(claimOrders, skip),
		worker, now.UnixMicro(), horizon.UnixMicro(), limit))
	if err != nil {
		return nil, fmt.Errorf("claiming orders that are due: %w", err)
	}
	return orders, nil
}

// Backlog counts the orders with a step left, by status.
func (s *Store) Backlog(ctx context.Context) (map[order.Status]order.Backlog, error) {
	rows, err := s.read.QueryContext(ctx, countBacklog)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[order.Status]order.Backlog{}
	for rows.Next() {
		var status order.Status
		var b order.Backlog
		var oldest int64
		if err := rows.Scan(&status, &b.Orders, &oldest); err != nil {
			return nil, err
		}
		b.Oldest = utc(oldest)
		all[status] = b
	}
	return all, rows.Err()
}

// ForgetKeys implements order.Store.
func (s *Store) ForgetKeys(ctx context.Context, before time.Time, limit int) (int64, error) {
	if _, err := s.write.ExecContext(ctx, forgetWorkers, before.UnixMicro()); err != nil {
		return 0, err
	}
	res, err := s.write.ExecContext(ctx, forgetKeys, before.UnixMicro(), limit)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func collect(rows *sql.Rows, err error) ([]*order.Order, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var orders []*order.Order
	for rows.Next() {
		o, err := scan(rows)
		if err != nil {
			return nil, err
		}
		orders = append(orders, o)
	}
	return orders, rows.Err()
}

// scan reads the columns, and what follows them into more.
func scan(row interface{ Scan(...any) error }, more ...any) (*order.Order, error) {
	var (
		o                            order.Order
		key                          sql.NullString
		lines, failure               []byte
		since, due, created, updated int64
		putOff                       sql.NullInt64
	)
	fields := []any{&o.ID, &o.CustomerID, &key, &o.Status, &o.Step, &since, &o.Attempts, &o.Owner,
		&due, &putOff, &o.Version, &o.PaymentMethod, &o.Currency, &lines, &o.TotalMinor,
		&o.PaymentID, &failure, &o.TraceParent, &created, &updated, &o.ExpectedTotal}
	if err := row.Scan(append(fields, more...)...); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(lines, &o.Lines); err != nil {
		return nil, fmt.Errorf("order %s has unreadable lines: %w", o.ID, err)
	}
	if failure != nil {
		if err := json.Unmarshal(failure, &o.Failure); err != nil {
			return nil, fmt.Errorf("order %s has an unreadable failure: %w", o.ID, err)
		}
	}
	o.Key = key.String
	o.StepSince, o.DueAt, o.CreatedAt, o.UpdatedAt = utc(since), utc(due), utc(created), utc(updated)
	if putOff.Valid {
		o.PutOffAt = utc(putOff.Int64)
	}
	return &o, nil
}

func utc(micros int64) time.Time { return time.UnixMicro(micros).UTC() }

// documents are the parts of an order that are kept as JSON.
func documents(o *order.Order) (lines string, failure sql.NullString, err error) {
	raw, err := json.Marshal(o.Lines)
	if err != nil {
		return "", failure, err
	}
	if o.Failure != nil {
		f, err := json.Marshal(o.Failure)
		if err != nil {
			return "", failure, err
		}
		failure = sql.NullString{String: string(f), Valid: true}
	}
	return string(raw), failure, nil
}
