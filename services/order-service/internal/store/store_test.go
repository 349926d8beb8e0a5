package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"prove/order-service/internal/order"
	"prove/order-service/internal/porttest"
	"prove/order-service/internal/postgrestest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	postgrestest.Stop()
	os.Exit(code)
}

// onBoth runs a test on a fresh SQLite file and on a fresh PostgreSQL database.
func onBoth(t *testing.T, test func(t *testing.T, s *Store)) {
	onBothEmpty(t, func(t *testing.T, s *Store) {
		if err := s.Migrated(t.Context()); !errors.Is(err, ErrNotMigrated) {
			t.Fatalf("before migrating: %v", err)
		}
		for range 2 { // twice is harmless
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(s.Migrated(t.Context()), s.Prepare(t.Context()), s.Ping(t.Context())); err != nil {
			t.Fatal(err)
		}
		test(t, s)
	})
}

// onBothEmpty does so before the schema is made.
func onBothEmpty(t *testing.T, test func(t *testing.T, s *Store)) {
	run := func(name, driver string, dsn func(t *testing.T) string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Open(t.Context(), driver, dsn(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, s)
		})
	}
	run("sqlite", "sqlite", func(t *testing.T) string {
		return filepath.Join(t.TempDir(), "a name with ?, % and #.db")
	})
	run("postgres", "pgx", postgrestest.New)
}

var long = time.Hour

func newOrder(customer, key string) *order.Order {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return &order.Order{
		ID: uuid.Must(uuid.NewV7()).String(), CustomerID: customer, Key: key,
		Status: order.Pending, Step: order.StepReserve, StepSince: now, Owner: "w1", DueAt: now,
		PaymentMethod: "tok_approve", Lines: []order.Line{{SKU: "A", Name: "Ä \"quoted\" näme", Quantity: 2}},
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		CreatedAt:   now, UpdatedAt: now,
	}
}

func create(t *testing.T, s *Store, o *order.Order) {
	t.Helper()
	prior, err := s.Create(t.Context(), o, []byte("fp"), time.Now().Add(-long))
	if err != nil || prior != nil {
		t.Fatalf("create: %+v, %v", prior, err)
	}
}

func TestAnOrderComesBackAsItWasSaved(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		o, expected := newOrder("c", "k"), int64(1<<40)
		o.ExpectedTotal = &expected
		create(t, s, o)
		got, err := s.Get(t.Context(), o.ID)
		if err != nil || !reflect.DeepEqual(got, o) {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, o)
		}
		available := int64(1)
		o.Status, o.Step, o.Attempts = order.Rejected, order.StepRelease, 2
		o.PutOffAt, o.Owner, o.DueAt = o.CreatedAt.Add(time.Second), "", o.CreatedAt.Add(long)
		o.UpdatedAt, o.StepSince = o.CreatedAt.Add(2*time.Second), o.CreatedAt.Add(time.Minute)
		o.Failure = &order.Failure{Code: order.StockShort, SKU: "A", Available: &available, Total: &expected}
		o.Currency, o.TotalMinor, o.PaymentID = "GBP", 1<<40, "pay-1"
		o.Lines = append(o.Lines, order.Line{SKU: "B", Quantity: 1, PriceMinor: 3})
		if err := s.Save(t.Context(), o, nil); err != nil {
			t.Fatal(err)
		}
		got, err = s.Get(t.Context(), o.ID)
		if err != nil || !reflect.DeepEqual(got, o) || got.Version != 2 {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, o)
		}
	})
}

func TestStates(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		o := newOrder("c", "k")
		create(t, s, o)
		save := func(status order.Status, step order.Step, attempts int) {
			t.Helper()
			o.Status, o.Step, o.Attempts, o.UpdatedAt = status, step, attempts, o.UpdatedAt.Add(time.Second)
			if err := s.Save(t.Context(), o, nil); err != nil {
				t.Fatal(err)
			}
		}
		save(order.Reserved, order.StepCharge, 0)
		save(order.Reserved, order.StepCharge, 1) // put off
		save(order.Reserved, order.StepCharge, 2)
		save(order.Rejected, order.StepCancelPayment, 0)
		save(order.Rejected, order.StepRelease, 0)
		stale := *o
		stale.Version--
		stale.Step = order.StepNone
		if err := s.Save(t.Context(), &stale, nil); !errors.Is(err, order.ErrConflict) {
			t.Fatal(err)
		}
		at := func(s int) time.Time { return o.CreatedAt.Add(time.Duration(s) * time.Second) }
		want := []order.State{
			{At: at(0), Status: order.Pending, Step: order.StepReserve},
			{At: at(1), Status: order.Reserved, Step: order.StepCharge},
			{At: at(4), Status: order.Rejected, Step: order.StepCancelPayment},
			{At: at(5), Status: order.Rejected, Step: order.StepRelease},
		}
		got, err := s.States(t.Context(), o.ID)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
		var tried int
		if err := s.read.QueryRow(`SELECT attempts FROM order_steps WHERE step = 'charge'`).Scan(&tried); err != nil || tried != 2 {
			t.Errorf("%d attempts are recorded, %v", tried, err)
		}
	})
}

// An order of the first schema is carried over with its history.
func TestMigrationKeepsOrders(t *testing.T) {
	onBothEmpty(t, func(t *testing.T, s *Store) {
		p, err := s.migrator()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.UpTo(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		history := `{"at_us":1000000,"status":"pending","step":"reserve","attempts":0}
{"at_us":2000000,"status":"rejected","step":"refund","attempts":3}
`
		if _, err := s.write.Exec(`INSERT INTO orders (id, customer_id, status, step, attempts, due_at_us, version,
			payment_method, currency, lines, total_minor, payment_id, traceparent, created_at_us,
			updated_at_us, history, idempotency_key, fingerprint, answer_status, answer_body)
			VALUES ('o', 'c', 'rejected', 'refund', 3, 3000000, 5, 'tok_approve', 'GBP', '[]', 7, 'pay-1', '', 1000000,
			2000000, $1, 'k', $2, 402, $2)`, history, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Migrate(t.Context()), s.Prepare(t.Context())); err != nil {
			t.Fatal(err)
		}
		sec := func(n int64) time.Time { return time.Unix(n, 0).UTC() }
		prior, err := s.Prior(t.Context(), "o")
		want := &order.Order{ID: "o", CustomerID: "c", Key: "k", Status: order.Rejected,
			Step: order.StepCancelPayment, StepSince: sec(2), Attempts: 3, DueAt: sec(3), PutOffAt: sec(2),
			Version: 5, PaymentMethod: "tok_approve", Currency: "GBP", Lines: []order.Line{}, TotalMinor: 7,
			PaymentID: "pay-1", CreatedAt: sec(1), UpdatedAt: sec(2)}
		if err != nil || !reflect.DeepEqual(prior.Order, want) || prior.Answer == nil || prior.Answer.Status != 402 {
			t.Errorf("got %+v, %v\nwant %+v", prior, err, want)
		}
		states, err := s.States(t.Context(), "o")
		if err != nil || !reflect.DeepEqual(states, []order.State{
			{At: sec(1), Status: order.Pending, Step: order.StepReserve},
			{At: sec(2), Status: order.Rejected, Step: order.StepCancelPayment},
		}) {
			t.Errorf("got %+v, %v", states, err)
		}
		now := sec(4)
		if due, err := s.Claim(t.Context(), "w", now, now.Add(long), 10); err != nil || len(due) != 1 {
			t.Errorf("got %+v, %v", due, err)
		}
	})
}

func TestUnknownOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		if _, err := s.Get(t.Context(), uuid.NewString()); !errors.Is(err, order.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestASaveFromAnOlderVersionIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		o := newOrder("c", "k")
		create(t, s, o)
		stale := *o
		if err := s.Save(t.Context(), o, nil); err != nil {
			t.Fatal(err)
		}
		stale.Status = order.Confirmed
		if err := s.Save(t.Context(), &stale, nil); !errors.Is(err, order.ErrConflict) {
			t.Fatalf("got %v", err)
		}
		if got, _ := s.Get(t.Context(), o.ID); got.Status != order.Pending {
			t.Errorf("the stale save changed the order to %s", got.Status)
		}
	})
}

func TestConcurrentDuplicatesOfAKeyMakeOneOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		var made atomic.Int32
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				prior, err := s.Create(context.Background(), newOrder("c", "k"), []byte("fp"), time.Now().Add(-long))
				switch {
				case err != nil:
					t.Error(err)
				case prior == nil:
					made.Add(1)
				case prior.Answer != nil || prior.Order == nil:
					t.Errorf("unexpected prior %+v", prior)
				}
			})
		}
		wg.Wait()
		if made.Load() != 1 {
			t.Errorf("%d orders were made", made.Load())
		}
	})
}

func TestKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx, since := t.Context(), time.Now().Add(-long)
		o := newOrder("c", "k")
		create(t, s, o)
		create(t, s, newOrder("other customer", "k"))

		if _, err := s.Create(ctx, newOrder("c", "k"), []byte("other"), since); !errors.Is(err, order.ErrKeyReused) {
			t.Fatalf("another request under the key: %v", err)
		}
		body := []byte("{\"exact\":  \"bytes\"}\x00\xff")
		if err := s.Save(ctx, o, &order.Answer{Status: 201, Body: body, Final: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Known(ctx, "c", "k", []byte("other"), since); !errors.Is(err, order.ErrKeyReused) {
			t.Fatalf("another request under the key: %v", err)
		}
		if prior, err := s.Known(ctx, "c", "k", []byte("fp"), since); err != nil || prior == nil || prior.Order.ID != o.ID {
			t.Fatalf("got %+v, %v", prior, err)
		}
		if prior, err := s.Known(ctx, "c", "new", []byte("fp"), since); err != nil || prior != nil {
			t.Fatalf("a new key is known: %+v, %v", prior, err)
		}
		prior, err := s.Create(ctx, newOrder("c", "k"), []byte("fp"), since)
		if err != nil || prior == nil || prior.Order.ID != o.ID ||
			!reflect.DeepEqual(prior.Answer, &order.Answer{Status: 201, Body: body, Final: true}) {
			t.Fatalf("got %+v, %v", prior, err)
		}
		// Too old a key is free.
		again := newOrder("c", "k")
		if prior, err := s.Create(ctx, again, []byte("other"), time.Now().Add(long)); err != nil || prior != nil {
			t.Fatalf("got %+v, %v", prior, err)
		}
		// One without a final answer is not, however old.
		if _, err := s.Create(ctx, newOrder("c", "k"), []byte("fp"), time.Now().Add(long)); !errors.Is(err, order.ErrKeyReused) {
			t.Fatalf("got %v", err)
		}
		// An answer that is not final frees the key, and the order stays.
		if err := s.Save(ctx, again, &order.Answer{Status: 503, Body: body}); err != nil {
			t.Fatal(err)
		}
		create(t, s, newOrder("c", "k"))
		if _, err := s.Get(ctx, again.ID); err != nil {
			t.Fatal(err)
		}
	})
}

func TestForgetKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx := t.Context()
		for i := range 5 {
			o := newOrder("c", fmt.Sprint(i))
			create(t, s, o)
			if i < 3 {
				if err := s.Save(ctx, o, &order.Answer{Status: 201, Body: []byte("x"), Final: true}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, want := range []int64{2, 1, 0} {
			if n, err := s.ForgetKeys(ctx, time.Now().Add(long), 2); err != nil || n != want {
				t.Fatalf("forgot %d, %v; want %d", n, err, want)
			}
		}
		if n, err := s.ForgetKeys(ctx, time.Now().Add(-long), 2); err != nil || n != 0 {
			t.Fatalf("forgot %d young keys, %v", n, err)
		}
	})
}

func TestListPagesNewestFirst(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		var want []string
		for i := range 7 {
			o := newOrder("c", fmt.Sprint(i))
			create(t, s, o)
			create(t, s, newOrder("somebody else", fmt.Sprint(i)))
			want = append([]string{o.ID}, want...)
		}
		var got []string
		before := ""
		for {
			page, err := s.List(t.Context(), "c", before, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, o := range page {
				got = append(got, o.ID)
			}
			before = got[len(got)-1]
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
	})
}

func TestClaim(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		ctx, now := t.Context(), time.Now().UTC().Truncate(time.Microsecond)
		horizon := now.Add(30 * time.Second)
		made := func(key, owner string, due time.Time, step order.Step, attempts int) *order.Order {
			o := newOrder("c", key)
			o.Owner, o.DueAt, o.Step, o.Attempts = owner, due, step, attempts
			create(t, s, o)
			return o
		}
		if err := errors.Join(s.Beat(ctx, "alive", now.Add(time.Minute)), s.Beat(ctx, "alive", now.Add(time.Second)),
			s.Beat(ctx, "dead", now.Add(-time.Microsecond)), s.Beat(ctx, "from the future", horizon.Add(time.Second)),
			s.Beat(ctx, "retired", now.Add(time.Second)), s.Retire(ctx, "retired")); err != nil {
			t.Fatal(err)
		}
		want := []*order.Order{ // longest due first
			made("put off", "", now.Add(-9*time.Second), order.StepCharge, 4),
			made("crashed", "dead", now.Add(-8*time.Second), order.StepCharge, 0),
			made("retired", "retired", now.Add(-7*time.Second), order.StepCharge, 0),
			made("the clock was set back", "from the future", now.Add(-6*time.Second), order.StepCharge, 0),
			made("unknown owner", "nobody", now.Add(-5*time.Second), order.StepCharge, 0),
			made("due now", "", now, order.StepCharge, 1),
			made("due after the clock was set back", "", horizon.Add(time.Second), order.StepCharge, 1),
		}
		made("later", "", now.Add(time.Second), order.StepCharge, 1)
		made("in hand", "alive", now.Add(-long), order.StepCharge, 0)
		made("mine", "me", now.Add(-long), order.StepCharge, 0)
		made("finished", "", now.Add(-long), order.StepNone, 0)

		first, err := s.Claim(ctx, "me", now, horizon, 1)
		if err != nil || len(first) != 1 || first[0].ID != want[0].ID || first[0].Attempts != 4 || first[0].Version != 2 ||
			first[0].Owner != "me" || !first[0].PutOffAt.Equal(want[0].UpdatedAt) {
			t.Fatalf("got %+v, %v", first, err)
		}
		rest, err := s.Claim(ctx, "me", now, horizon, 100)
		if err != nil || len(rest) != len(want)-1 {
			t.Fatalf("got %d of %d, %v", len(rest), len(want)-1, err)
		}
		got := map[string]int{}
		for _, o := range rest {
			got[o.ID] = o.Attempts
		}
		for _, o := range want[1:] {
			if got[o.ID] != 1 {
				t.Errorf("%q was claimed with %d attempts", o.Key, got[o.ID])
			}
		}
		if none, err := s.Claim(ctx, "me", now, horizon, 10); err != nil || len(none) != 0 {
			t.Fatalf("got %+v, %v", none, err)
		}
		// Whoever held it before has lost it.
		if err := s.Save(ctx, want[1], nil); !errors.Is(err, order.ErrConflict) {
			t.Errorf("got %v", err)
		}
		if n, err := s.ForgetKeys(ctx, now, 10); err != nil || n != 0 {
			t.Fatalf("forgot %d keys, %v", n, err)
		}
		var workers int
		if err := s.read.QueryRow(`SELECT count(*) FROM workers`).Scan(&workers); err != nil || workers != 2 {
			t.Errorf("%d workers are known, %v", workers, err)
		}
	})
}

// Several processes, as far as the database can tell.
func TestConcurrentClaimsShareNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		now := time.Now()
		for i := range 40 {
			o := newOrder("c", fmt.Sprint(i))
			o.Owner, o.DueAt = "", now.Add(-time.Second)
			create(t, s, o)
		}
		var mu sync.Mutex
		seen := map[string]int{}
		var wg sync.WaitGroup
		for i := range 8 {
			worker := fmt.Sprint("w", i)
			if err := s.Beat(t.Context(), worker, now.Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				for {
					orders, err := s.Claim(context.Background(), worker, now, now.Add(long), 3)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for _, o := range orders {
						seen[o.ID]++
					}
					done := len(seen) == 40
					mu.Unlock()
					if done {
						return
					}
				}
			})
		}
		wg.Wait()
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s was claimed %d times", id, n)
			}
		}
	})
}

func TestBacklog(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		if all, err := s.Backlog(t.Context()); err != nil || len(all) != 0 {
			t.Fatalf("got %v, %v", all, err)
		}
		o := newOrder("c", "1")
		create(t, s, o)
		create(t, s, newOrder("c", "2"))
		paid := newOrder("c", "3")
		paid.Status = order.Paid
		create(t, s, paid)
		done := newOrder("c", "4")
		done.Status, done.Step = order.Confirmed, order.StepNone
		create(t, s, done)
		all, err := s.Backlog(t.Context())
		if err != nil || len(all) != 2 || all[order.Paid].Orders != 1 || all[order.Pending].Orders != 2 ||
			!all[order.Pending].Oldest.Equal(o.CreatedAt) {
			t.Fatalf("got %v, %v", all, err)
		}
	})
}

// What an operator can mend is one sentence that says how.
func TestOpenExplains(t *testing.T) {
	dir := t.TempDir()
	corrupt := filepath.Join(dir, "corrupt.db")
	if err := os.WriteFile(corrupt, []byte(strings.Repeat("this is not a database ", 300)), 0o600); err != nil {
		t.Fatal(err)
	}
	closed := "127.0.0.1:" + porttest.Free()
	for _, c := range []struct{ driver, dsn, want string }{
		{"sqlite", corrupt, "move it away or restore a backup"},
		{"sqlite", filepath.Join(dir, "no", "such", "order.db"), "does not exist; create it or set DATABASE_URL"},
		{"sqlite", dir, "set DATABASE_URL"},
		{"pgx", fmt.Sprintf("postgresql://u:hunter2@%s/d", closed), "cannot be reached"},
	} {
		s, err := Open(t.Context(), c.driver, c.dsn)
		if err == nil {
			s.Close()
			t.Errorf("%s: opened", c.dsn)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %q, want %q", c.dsn, err, c.want)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than one line: %q", c.dsn, err)
		}
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("skipped: root may write everywhere; the test of the binary covers it")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), "sqlite", filepath.Join(dir, "order.db"))
	if err == nil || !strings.Contains(err.Error(), "writable") {
		t.Errorf("got %v", err)
	}
}
