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

const columns = `id, customer_id, idempotency_key, status, step, attempts, due_at_us, version,
	payment_method, currency, lines, total_minor, payment_id, failure, traceparent,
	created_at_us, updated_at_us`

// $n is understood by both databases.
const (
	insertOrder = `INSERT INTO orders (` + columns + `, history, fingerprint) VALUES
		($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
		ON CONFLICT (customer_id, idempotency_key) DO NOTHING`
	updateOrder = `UPDATE orders SET status = $1, step = $2, attempts = $3, due_at_us = $4,
		version = $5, currency = $6, lines = $7, total_minor = $8, payment_id = $9,
		failure = $10, updated_at_us = $11, history = history || $12`
	ofVersion  = ` WHERE id = $13 AND version = $14`
	saveOrder  = updateOrder + ofVersion
	saveAnswer = updateOrder + `, answer_status = $15, answer_body = $16` + ofVersion
	saveFreed  = updateOrder + `, idempotency_key = NULL` + ofVersion

	selectKey = `SELECT id, fingerprint, answer_status, answer_body, created_at_us FROM orders
		WHERE customer_id = $1 AND idempotency_key = $2`
	freeKey     = `UPDATE orders SET idempotency_key = NULL WHERE id = $1`
	selectOrder = `SELECT ` + columns + ` FROM orders WHERE id = $1`
	listOrders  = `SELECT ` + columns + ` FROM orders WHERE customer_id = $1 AND id < $2
		ORDER BY id DESC LIMIT $3`
	dueOrders = `SELECT 1 FROM orders WHERE step <> '' AND due_at_us <= $1 LIMIT 1`
	// A crash leaves attempts at 0 in a step that may have been taken: claiming makes it 1.
	claimOrders = `UPDATE orders SET due_at_us = $1, version = version + 1,
		attempts = CASE WHEN attempts = 0 THEN 1 ELSE attempts END
		WHERE id IN (SELECT id FROM orders WHERE step <> '' AND due_at_us <= $2
			ORDER BY due_at_us LIMIT $3 %s) RETURNING ` + columns
	oldestUnfinished = `SELECT min(created_at_us) FROM orders WHERE step <> ''`
	forgetKeys       = `UPDATE orders SET idempotency_key = NULL, answer_body = NULL WHERE id IN (
		SELECT id FROM orders WHERE created_at_us < $1 AND idempotency_key IS NOT NULL
			AND answer_status IS NOT NULL LIMIT $2)`
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
			string(o.Status), string(o.Step), o.Attempts, o.DueAt.UnixMicro(), 1, o.PaymentMethod,
			o.Currency, lines, o.TotalMinor, o.PaymentID, failure, o.TraceParent,
			o.CreatedAt.UnixMicro(), o.UpdatedAt.UnixMicro(), historyLine(o), fingerprint)
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
		prior, err := s.prior(ctx, o.CustomerID, o.Key, fingerprint, keysSince)
		if prior != nil || err != nil {
			return prior, err
		}
		// The key was freed meanwhile, or is too old: it is ours now.
	}
}

// prior reads what a key was used for; nil when it is free again.
func (s *Store) prior(ctx context.Context, customer, key string, fingerprint []byte, since time.Time) (*order.Prior, error) {
	var (
		id         string
		seen, body []byte
		status     sql.NullInt64
		created    int64
	)
	err := s.write.QueryRowContext(ctx, selectKey, customer, key).
		Scan(&id, &seen, &status, &body, &created)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading an idempotency key: %w", err)
	}
	if status.Valid && created < since.UnixMicro() {
		if _, err := s.write.ExecContext(ctx, freeKey, id); err != nil {
			return nil, fmt.Errorf("freeing an old idempotency key: %w", err)
		}
		return nil, nil
	}
	if !bytes.Equal(seen, fingerprint) {
		return nil, order.ErrKeyReused
	}
	o, err := s.Get(ctx, id)
	if err != nil {
		return nil, err
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
	args := []any{string(o.Status), string(o.Step), o.Attempts, o.DueAt.UnixMicro(), o.Version + 1,
		o.Currency, lines, o.TotalMinor, o.PaymentID, failure, o.UpdatedAt.UnixMicro(),
		historyLine(o), o.ID, o.Version}
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

// historyLine is what the history keeps of one state.
func historyLine(o *order.Order) string {
	return fmt.Sprintf(`{"at_us":%d,"status":%q,"step":%q,"attempts":%d}`+"\n",
		o.UpdatedAt.UnixMicro(), o.Status, o.Step, o.Attempts)
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

// Claim implements order.Store.
func (s *Store) Claim(ctx context.Context, now, until time.Time, limit int) ([]*order.Order, error) {
	// Mostly nothing is due: do not take the write lock to learn that.
	var one int
	err := s.read.QueryRowContext(ctx, dueOrders, now.UnixMicro()).Scan(&one)
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
		until.UnixMicro(), now.UnixMicro(), limit))
	if err != nil {
		return nil, fmt.Errorf("claiming orders that are due: %w", err)
	}
	return orders, nil
}

// OldestUnfinished implements order.Store.
func (s *Store) OldestUnfinished(ctx context.Context) (time.Time, error) {
	var created sql.NullInt64
	err := s.read.QueryRowContext(ctx, oldestUnfinished).Scan(&created)
	if err != nil || !created.Valid {
		return time.Time{}, err
	}
	return utc(created.Int64), nil
}

// ForgetKeys implements order.Store.
func (s *Store) ForgetKeys(ctx context.Context, before time.Time, limit int) (int64, error) {
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

func scan(row interface{ Scan(...any) error }) (*order.Order, error) {
	var (
		o                     order.Order
		key                   sql.NullString
		lines, failure        []byte
		due, created, updated int64
	)
	err := row.Scan(&o.ID, &o.CustomerID, &key, &o.Status, &o.Step, &o.Attempts, &due, &o.Version,
		&o.PaymentMethod, &o.Currency, &lines, &o.TotalMinor, &o.PaymentID, &failure,
		&o.TraceParent, &created, &updated)
	if err != nil {
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
	o.DueAt, o.CreatedAt, o.UpdatedAt = utc(due), utc(created), utc(updated)
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
