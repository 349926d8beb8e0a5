// Command toy is the smallest thing that can be run, reached, made busy and made sick in a pod; and,
// called with arguments, a client inside one.
//
//	toy                            serve on :8080 until SIGTERM
//	toy wait                       do nothing until SIGTERM
//	toy connect HOST:PORT...       a line each: "HOST:PORT open|closed|timeout" (closed: refused)
//	toy get URL...                 a line each: "STATUS BODY" or "error: …"
//	toy lookup NAME...             a line each: "NAME ADDRESS,…" or "error: …"
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const patience = 2 * time.Second

func main() {
	if len(os.Args) == 1 {
		serve()
		return
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "wait":
		stopped := make(chan os.Signal, 1)
		signal.Notify(stopped, syscall.SIGTERM)
		<-stopped
	case "connect":
		each(args, connect)
	case "get":
		each(args, get)
	case "lookup":
		each(args, lookup)
	default:
		log.Fatalf("toy: there is no %q", os.Args[1])
	}
}

// each does all at once and prints what comes of them in order.
func each(args []string, do func(string) string) {
	answers := make([]string, len(args))
	var done sync.WaitGroup
	for i, arg := range args {
		done.Go(func() { answers[i] = do(arg) })
	}
	done.Wait()
	for _, answer := range answers {
		fmt.Println(answer)
	}
}

func connect(address string) string {
	connection, err := net.DialTimeout("tcp", address, patience)
	var timeout net.Error
	switch {
	case err == nil:
		_ = connection.Close()
		return address + " open"
	case errors.Is(err, syscall.ECONNREFUSED):
		return address + " closed"
	case errors.As(err, &timeout) && timeout.Timeout():
		return address + " timeout"
	}
	return fmt.Sprintf("%s error: %v", address, err)
}

func get(url string) string {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return fmt.Sprintf("error: %v", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Sprintf("error: %v", err)
	}
	return fmt.Sprintf("%d %s", response.StatusCode, strings.TrimSpace(string(body)))
}

func lookup(name string) string {
	addresses, err := net.LookupHost(name)
	if err != nil {
		return fmt.Sprintf("error: %v", err)
	}
	return name + " " + strings.Join(addresses, ",")
}

func serve() {
	name, _ := os.Hostname()
	var unready, sick atomic.Bool
	var lock sync.Mutex
	var held, posted [][]byte

	probe := func(failing *atomic.Bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if failing.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, name, os.Getenv("VERSION"))
	})
	http.HandleFunc("/readyz", probe(&unready))
	http.HandleFunc("/livez", probe(&sick))
	http.HandleFunc("/unready", func(http.ResponseWriter, *http.Request) { unready.Store(true) })
	http.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) { unready.Store(false) })
	http.HandleFunc("/sick", func(http.ResponseWriter, *http.Request) { sick.Store(true) })
	http.HandleFunc("/burn", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.FormValue("ms"))
		for end := time.Now().Add(time.Duration(ms) * time.Millisecond); time.Now().Before(end); {
		}
		_, _ = fmt.Fprintln(w, name)
	})
	http.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) {
		mib, _ := strconv.Atoi(r.FormValue("mib"))
		block := make([]byte, mib<<20)
		for i := 0; i < len(block); i += os.Getpagesize() {
			block[i] = 1
		}
		lock.Lock()
		defer lock.Unlock()
		held = append(held, block)
		_, _ = fmt.Fprintln(w, name, "holds", len(held))
	})

	// What was posted to /inbox, one a line.
	http.HandleFunc("POST /inbox", func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		lock.Lock()
		defer lock.Unlock()
		posted = append(posted, bytes.TrimSpace(body))
	})
	http.HandleFunc("GET /inbox", func(w http.ResponseWriter, _ *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		_, _ = w.Write(bytes.Join(posted, []byte("\n")))
	})

	go func() {
		stopped := make(chan os.Signal, 1)
		signal.Notify(stopped, syscall.SIGTERM)
		<-stopped
		os.Exit(0)
	}()
	log.Fatal(http.ListenAndServe(":8080", nil))
}
