// Command buyer is a crowd of customers in a pod: it orders, and looks at goods, at constant rates,
// whatever becomes of the requests before, and counts. It speaks HTTP on :8080; called with arguments
// it asks that server.
//
//	buyer            buy until SIGTERM; ORDERS, PRODUCTS (base URLs) and RATE (orders a second) say where
//	                 and how fast
//	buyer stats      what was asked for so far, as JSON
//	buyer orders     the ids of all confirmed orders, one a line
//	buyer forget     begin anew with the quantiles of latency, and with the failures told in full
//	buyer rate N     N orders a second from now on; 0 rests
//	buyer browse N   N looks at a page of goods a second; 0 rests
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	patience = 12 * time.Second // above the shop's own limit for a checkout
	kept     = 20               // failures that are told in full
)

// Stats is what came of the requests so far. A request fails when there is no answer in time, or
// one that isn't a success: every order asked for can be fulfilled.
type Stats struct {
	Requests int            `json:"requests"`
	Failed   int            `json:"failed"`
	Waiting  int            `json:"waiting"`
	Statuses map[string]int `json:"statuses"`
	Failures []Failure      `json:"failures"`
	P50ms    float64        `json:"p50_ms"`
	P95ms    float64        `json:"p95_ms"`
	MaxMs    float64        `json:"max_ms"`
}

// Failure is one request that failed.
type Failure struct {
	At     string `json:"at"`
	What   string `json:"what"`
	Reason string `json:"reason"`
}

type crowd struct {
	client           http.Client
	orders, products string
	ordering         atomic.Int64 // a second
	browsing         atomic.Int64

	lock      sync.Mutex
	stats     Stats
	latencies []float64
	confirmed []string
	skus      []string
}

func main() {
	if len(os.Args) > 1 {
		ask(os.Args[1:])
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	c := &crowd{
		client:   http.Client{Timeout: patience, Transport: transport},
		orders:   os.Getenv("ORDERS"),
		products: os.Getenv("PRODUCTS"),
		stats:    Stats{Statuses: map[string]int{}, Failures: []Failure{}},
	}
	rate, err := strconv.ParseInt(os.Getenv("RATE"), 10, 64)
	if err != nil {
		log.Fatalf("buyer: RATE: %v", err)
	}
	c.ordering.Store(rate)
	c.browsing.Store(1)
	go c.serve()
	c.run(ctx)
}

func (c *crowd) run(ctx context.Context) {
	for len(c.skus) == 0 && ctx.Err() == nil {
		if err := c.look(ctx); err != nil {
			log.Printf("no goods yet: %v", err)
			time.Sleep(time.Second)
		}
	}
	go keepPace(ctx, &c.browsing, c.browse)
	keepPace(ctx, &c.ordering, c.order)
}

// keepPace does it so many times a second, whatever becomes of the times before.
func keepPace(ctx context.Context, perSecond *atomic.Int64, do func()) {
	due := time.Now()
	for ctx.Err() == nil {
		rate := perSecond.Load()
		if rate <= 0 {
			time.Sleep(100 * time.Millisecond)
			due = time.Now()
			continue
		}
		due = due.Add(time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		go do()
	}
}

// look learns what there is to buy.
func (c *crowd) look(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.products+"/api/v1/products?limit=100", nil)
	if err != nil {
		return err
	}
	answer, err := c.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	var page struct {
		Items []struct {
			SKU   string `json:"sku"`
			Stock int    `json:"stock"`
		} `json:"items"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&page); err != nil {
		return err
	}
	for _, item := range page.Items {
		if item.Stock > 1000 {
			c.skus = append(c.skus, item.SKU)
		}
	}
	if len(c.skus) == 0 {
		return errors.New("an empty catalogue")
	}
	return nil
}

func (c *crowd) order() {
	body, _ := json.Marshal(map[string]any{
		"customer_id":    fmt.Sprintf("buyer-%d", rand.IntN(500)),
		"lines":          []map[string]any{{"sku": c.skus[rand.IntN(len(c.skus))], "quantity": 1}},
		"payment_method": "tok_approve",
	})
	request, err := http.NewRequest(http.MethodPost, c.orders+"/api/v1/orders", bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()))
	c.do("order", request, http.StatusCreated, http.StatusAccepted)
}

func (c *crowd) browse() {
	request, err := http.NewRequest(http.MethodGet, c.products+"/api/v1/products?limit=10", nil)
	if err != nil {
		log.Fatal(err)
	}
	c.do("browse", request, http.StatusOK)
}

func (c *crowd) do(what string, request *http.Request, success ...int) {
	c.lock.Lock()
	c.stats.Waiting++
	c.lock.Unlock()
	began := time.Now()
	status, body, reason := 0, []byte{}, ""
	answer, err := c.client.Do(request)
	if err == nil {
		status = answer.StatusCode
		body, err = io.ReadAll(answer.Body)
		_ = answer.Body.Close()
	}
	switch {
	case err != nil:
		reason = err.Error()
	case !slices.Contains(success, status):
		reason = fmt.Sprintf("%d %s", status, body)
	}

	c.lock.Lock()
	defer c.lock.Unlock()
	c.stats.Waiting--
	c.stats.Requests++
	c.stats.Statuses[what+" "+strconv.Itoa(status)]++
	if what == "order" {
		c.latencies = append(c.latencies, float64(time.Since(began).Microseconds())/1000)
	}
	if reason != "" {
		c.stats.Failed++
		log.Printf("%s failed: %s", what, reason)
		if len(c.stats.Failures) < kept {
			at := began.UTC().Format(time.RFC3339Nano)
			c.stats.Failures = append(c.stats.Failures, Failure{At: at, What: what, Reason: reason})
		}
	} else if status == http.StatusCreated {
		var order struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(body, &order) == nil {
			c.confirmed = append(c.confirmed, order.ID)
		}
	}
}

func (c *crowd) serve() {
	http.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		c.lock.Lock()
		defer c.lock.Unlock()
		sorted := slices.Sorted(slices.Values(c.latencies))
		if n := len(sorted); n > 0 {
			c.stats.P50ms, c.stats.P95ms, c.stats.MaxMs = sorted[n/2], sorted[n*95/100], sorted[n-1]
		}
		_ = json.NewEncoder(w).Encode(c.stats)
	})
	// Quantiles and failures in full are of the time since the last call.
	http.HandleFunc("POST /forget", func(http.ResponseWriter, *http.Request) {
		c.lock.Lock()
		defer c.lock.Unlock()
		c.latencies, c.stats.Failures = nil, []Failure{}
	})
	http.HandleFunc("GET /orders", func(w http.ResponseWriter, _ *http.Request) {
		c.lock.Lock()
		defer c.lock.Unlock()
		_, _ = fmt.Fprintln(w, strings.Join(c.confirmed, "\n"))
	})
	for what, perSecond := range map[string]*atomic.Int64{"rate": &c.ordering, "browse": &c.browsing} {
		http.HandleFunc("POST /"+what+"/{n}", func(w http.ResponseWriter, r *http.Request) {
			n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			perSecond.Store(n)
		})
	}
	log.Fatal(http.ListenAndServe(":8080", nil))
}

// ask is a client of this pod's own server.
func ask(words []string) {
	method := http.MethodGet
	if slices.Contains([]string{"rate", "browse", "forget"}, words[0]) {
		method = http.MethodPost
	}
	request, err := http.NewRequest(method, "http://127.0.0.1:8080/"+strings.Join(words, "/"), nil)
	if err != nil {
		log.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		log.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK {
		os.Exit(1)
	}
}
