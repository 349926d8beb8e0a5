// Command order-service takes orders: it reserves stock, charges payments and keeps the books.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel"

	"prove/order-service/internal/config"
	"prove/order-service/internal/fault"
	"prove/order-service/internal/httpapi"
	"prove/order-service/internal/order"
	"prove/order-service/internal/payment"
	"prove/order-service/internal/peer"
	"prove/order-service/internal/product"
	"prove/order-service/internal/store"
	"prove/order-service/internal/telemetry"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "0.1.0"

const (
	peerTimeout  = 2 * time.Second // one attempt, unless the request says how long it waits
	flushTimeout = 3 * time.Second // of the grace period, kept for delivering telemetry
	usage        = "usage: order-service [serve|migrate|openapi]"
)

// errUsage: the environment or the command line is at fault; exit code 2.
var errUsage = errors.New("usage")

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", config.Service, err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// badSetup marks err as the operator's to mend without changing its text.
type badSetup struct{ error }

func (badSetup) Is(target error) bool { return target == errUsage }

func run(args []string) error {
	command := "serve"
	if len(args) > 0 {
		command = args[0]
	}
	if len(args) > 1 {
		return badSetup{errors.New(usage)}
	}
	switch command {
	case "serve":
		return serve()
	case "migrate":
		return migrate()
	case "openapi":
		return openAPI()
	}
	return badSetup{fmt.Errorf("unknown command %q; %s", command, usage)}
}

func migrate() error {
	cfg, err := config.Load(os.LookupEnv)
	if err != nil {
		return badSetup{err}
	}
	ctx := context.Background()
	db, err := store.Open(ctx, cfg.Database.Driver, cfg.Database.DSN)
	if err != nil {
		return badSetup{err}
	}
	if err := db.Migrate(ctx); err != nil {
		return badSetup{errors.Join(err, db.Close())}
	}
	return db.Close()
}

func openAPI() error {
	_, document, err := httpapi.New(httpapi.Options{Orders: &order.Service{}, Version: version})
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(document))
	return err
}

func serve() (err error) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)

	cfg, err := config.Load(os.LookupEnv)
	if err != nil {
		return badSetup{err}
	}
	ctx := context.Background()
	listener, err := listen(cfg)
	if err != nil {
		return badSetup{err}
	}
	tel, err := telemetry.Start(ctx, os.Stdout, config.Service, version, cfg.LogLevel)
	if err != nil {
		return badSetup{errors.Join(err, listener.Close())}
	}
	db, err := openStore(ctx, cfg)
	if err != nil {
		return badSetup{errors.Join(err, listener.Close())}
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	var draining atomic.Bool
	faults := fault.Open(cfg.FaultsFile, tel.Log)
	transport := peer.NewTransport()
	orders, handler, err := wire(cfg, tel, db, faults, transport, draining.Load)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{
		Handler:           httpapi.Aged(handler, cfg.ConnectionAge),
		ConnContext:       httpapi.Born,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       75 * time.Second,
		// Longer than the longest checkout; a request that a fault hits has no limit.
		WriteTimeout:   30*time.Second + 2*cfg.CheckoutTimeout,
		MaxHeaderBytes: 64 << 10, // httpapi answers properly well below
	}
	if err := orders.Enlist(ctx); err != nil {
		return badSetup{err}
	}
	work, stopWork := context.WithCancel(ctx)
	defer stopWork()
	var background sync.WaitGroup
	background.Go(func() { orders.Work(work) })
	burdens := fault.Burdens{Leases: faults, Database: db, Log: tel.Log}
	background.Go(func() { burdens.Follow(work) })
	background.Go(func() { transport.Renew(work, cfg.ConnectionAge) })
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	tel.Log.Info("serving", "address", cfg.Address(), "version", version, "database", cfg.Database.Driver)

	select {
	case err := <-failed:
		return err
	case s := <-signals:
		tel.Log.Info("shutting down", "signal", s.String())
	}
	go func() { // a second signal: at once
		<-signals
		os.Exit(1)
	}()
	draining.Store(true)
	deadline, cancel := context.WithTimeout(ctx, cfg.ShutdownGrace)
	defer cancel()
	return shutdown(deadline, cfg, server, tel, func() {
		stopWork()
		background.Wait()
	})
}

// shutdown lets load balancers see that the service is unready, finishes the requests it has, stops
// the background work at a recorded state and delivers the telemetry, all before ctx ends.
func shutdown(ctx context.Context, cfg config.Config, server *http.Server, tel *telemetry.Telemetry, stop func()) error {
	select {
	case <-time.After(cfg.ShutdownDelay):
	case <-ctx.Done():
	}
	// Half of a grace period too short for both is left for telemetry.
	end, _ := ctx.Deadline()
	left := time.Until(end)
	drain, cancel := context.WithTimeout(ctx, left-min(flushTimeout, left/2))
	defer cancel()
	err := server.Shutdown(drain)
	if err != nil {
		err = fmt.Errorf("requests were cut off after SHUTDOWN_GRACE_S: %w", errors.Join(err, server.Close()))
	}
	stop()
	tel.Log.Info("stopped")
	flush, cancelFlush := context.WithTimeout(ctx, flushTimeout)
	defer cancelFlush()
	if lost := tel.Shutdown(flush); lost != nil {
		// A Collector that is away is no reason to fail.
		fmt.Fprintf(os.Stderr, "%s: the last telemetry was not delivered: %v\n", config.Service, lost)
	}
	return err
}

func listen(cfg config.Config) (net.Listener, error) {
	listener, err := net.Listen("tcp", cfg.Address())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is already in use; set PORT or stop the other process (ss -ltnp shows it)",
			cfg.Address())
	case err != nil:
		return nil, fmt.Errorf("%s cannot be listened on; correct HOST and PORT: %w", cfg.Address(), err)
	}
	return listener, nil
}

func openStore(ctx context.Context, cfg config.Config) (*store.Store, error) {
	db, err := store.Open(ctx, cfg.Database.Driver, cfg.Database.DSN)
	if err != nil {
		return nil, err
	}
	if cfg.MigrateOnStart {
		err = db.Migrate(ctx)
	} else {
		err = db.Migrated(ctx)
	}
	if err == nil {
		err = db.Prepare(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// wire makes the service of its parts.
func wire(cfg config.Config, tel *telemetry.Telemetry, db *store.Store, faults *fault.Leases,
	transport peer.Transport, draining func() bool) (*order.Service, http.Handler, error) {
	metrics, err := telemetry.NewMetrics()
	if err != nil {
		return nil, nil, err
	}
	if err := metrics.ObserveBacklog(db.Backlog); err != nil {
		return nil, nil, err
	}
	retries := peer.NewBudget(metrics)
	products, err := peer.New("product-service", cfg.ProductURL, peerTimeout, transport, retries, metrics)
	if err != nil {
		return nil, nil, err
	}
	payments, err := peer.New("payment-service", cfg.PaymentURL, peerTimeout, transport, retries, metrics)
	if err != nil {
		return nil, nil, err
	}
	orders := &order.Service{
		Store:    db,
		Stock:    product.Client{Peer: products, Hold: cfg.ReservationTTL},
		Payments: payment.Client{Peer: payments},
		Observer: metrics,
		Log:      tel.Log,
		Tracer:   otel.Tracer(telemetry.Scope),
		Render:   httpapi.Render,
		Resting: func() string {
			for _, p := range []*peer.Client{products, payments} {
				if p.Resting() {
					return p.Name
				}
			}
			return ""
		},
		Worker:      uuid.NewString(),
		Timeout:     cfg.CheckoutTimeout,
		PaymentWait: cfg.PaymentWait,
		GiveUp:      cfg.PaymentGiveUp,
	}
	handler, _, err := httpapi.New(httpapi.Options{
		Orders: orders, Admission: bulkhead.New[any](cfg.MaxCheckouts), Shed: metrics.Shed, Database: db, Faults: faults, Log: tel.Log,
		Peers: func() map[string]string {
			return map[string]string{"product-service": products.State(), "payment-service": payments.State()}
		},
		Draining: draining, AdminToken: cfg.AdminToken, MaxBodyBytes: cfg.MaxBodyBytes,
		Address: cfg.Address(), Version: version,
	})
	if err != nil {
		return nil, nil, err
	}
	handler, err = instrument(orders, handler)
	return orders, handler, err
}
