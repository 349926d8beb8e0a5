package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"prove/order-service/internal/fault"
)

var _ fault.Database = (*Store)(nil)

// Occupy implements fault.Database.
func (s *Store) Occupy(ctx context.Context, connections int) {
	pools := []*sql.DB{s.read}
	if s.write != s.read {
		pools = append(pools, s.write)
	}
	var held sync.WaitGroup
	taken := 0
	for _, pool := range pools {
		for range pool.Stats().MaxOpenConnections {
			if taken++; connections != 0 && taken > connections {
				break
			}
			held.Go(func() {
				conn, err := pool.Conn(ctx)
				if err != nil {
					return // the end came first, or there is no database
				}
				<-ctx.Done()
				_ = conn.Close() // back to the pool
			})
		}
	}
	held.Wait()
}

// tablesOf names every table, to be locked: PostgreSQL has no lock for all of them.
const tablesOf = `SELECT string_agg(format('%I', tablename), ', ' ORDER BY tablename)
	FROM pg_tables WHERE schemaname = current_schema()`

// Lock implements fault.Database, on a connection of its own.
func (s *Store) Lock(ctx context.Context, hold time.Duration) (err error) {
	db, err := s.apart()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, nil) // SQLite: IMMEDIATE, see _txlock
	if err != nil {
		return err
	}
	defer func() {
		if rollback := tx.Rollback(); ctx.Err() == nil { // else the driver has ended it
			err = errors.Join(err, rollback)
		}
	}()
	if s.driver == "pgx" {
		if err := lockTables(ctx, tx); err != nil {
			return err
		}
	}
	select {
	case <-time.After(hold):
	case <-ctx.Done():
	}
	return nil
}

func lockTables(ctx context.Context, tx *sql.Tx) error {
	// Less than deadlock_timeout: where two wait for each other, this one gives in.
	if _, err := tx.ExecContext(ctx, `SET LOCAL lock_timeout = '500ms'`); err != nil {
		return err
	}
	var tables string
	if err := tx.QueryRowContext(ctx, tablesOf).Scan(&tables); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "LOCK TABLE "+tables+" IN EXCLUSIVE MODE")
	return err
}
