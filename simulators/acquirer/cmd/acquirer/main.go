// Command acquirer is a simulated card acquirer: the shop's outside payment provider, with a ledger of
// its own and no telemetry, as a real provider would look from here.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"prove/acquirer/internal/fault"
	"prove/acquirer/internal/httpapi"
	"prove/acquirer/internal/ledger"
)

const usage = "usage: acquirer [serve|migrate]   (settings come from the environment; see its README.md)"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "acquirer: %v\n", err)
		os.Exit(2)
	}
}

func run(args []string, stdout io.Writer) error {
	command := "serve"
	if len(args) > 0 {
		command = args[0]
	}
	if len(args) > 1 || (command != "serve" && command != "migrate") {
		return errors.New(usage)
	}
	config, err := loadConfig()
	if err != nil {
		return err
	}
	// The first signal begins the orderly end; the handler is then gone, so a second one kills.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop)

	book, err := ledger.Open(ctx, config.databasePath)
	if err != nil {
		return err
	}
	if command == "serve" {
		err = serve(ctx, config, book, newLogger(stdout, config.logLevel))
	}
	return errors.Join(err, book.Close())
}

func serve(ctx context.Context, config config, book *ledger.Ledger, log *slog.Logger) error {
	address := net.JoinHostPort(config.host, strconv.Itoa(config.port))
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is already in use; set PORT or stop the other process (ss -ltnp shows it)", address)
	} else if err != nil {
		return fmt.Errorf("cannot listen on %s; set HOST and PORT to an address of this machine: %w", address, err)
	}
	var ready atomic.Bool
	ready.Store(true)
	api := &httpapi.API{
		Ledger: book, Log: log, SlowFor: config.slowFor, MaxBodyBytes: config.maxBodyBytes, Ready: ready.Load,
		Faults: fault.Open(config.faultsFile, log), AdminToken: config.adminToken,
	}
	server := &http.Server{
		Handler:           api.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	log.Info("listening", "address", address)

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ready.Store(false)
	log.Info("stopping")
	time.Sleep(config.shutdownDelay)
	grace, cancel := context.WithTimeout(context.Background(), config.shutdownGrace-config.shutdownDelay)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		log.Warn("requests were cut off at the end of the grace period", "error", err.Error())
		_ = server.Close()
	}
	log.Info("stopped")
	return nil
}

// newLogger writes JSON lines with the field names the shop's own services use.
func newLogger(out io.Writer, level slog.Level) *slog.Logger {
	replace := func(groups []string, attr slog.Attr) slog.Attr {
		if len(groups) > 0 {
			return attr
		}
		switch attr.Key {
		case slog.TimeKey:
			return slog.String("ts", attr.Value.Time().UTC().Format("2006-01-02T15:04:05.000000Z"))
		case slog.LevelKey:
			return slog.String("level", map[slog.Level]string{
				slog.LevelDebug: "debug", slog.LevelInfo: "info", slog.LevelWarn: "warning", slog.LevelError: "error",
			}[attr.Value.Any().(slog.Level)])
		case slog.MessageKey:
			attr.Key = "event"
		}
		return attr
	}
	handler := slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level, ReplaceAttr: replace})
	return slog.New(handler).With("service", "acquirer")
}
