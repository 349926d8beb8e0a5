// Package product is the client of the Product Service's reservations.
package product

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"prove/order-service/internal/order"
	"prove/order-service/internal/peer"
)

const reservations = "api/v1/reservations"

// Client implements order.Stock. Hold is how long stock is held for an order; it is extended before
// a late charge.
type Client struct {
	Peer *peer.Client
	Hold time.Duration
}

var _ order.Stock = Client{}

type reserveBody struct {
	OrderID string        `json:"order_id"`
	Lines   []reserveLine `json:"lines"`
	TTL     int           `json:"ttl_s"`
}

type reserveLine struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

type reservation struct {
	Currency   string       `json:"currency"`
	TotalMinor int64        `json:"total_minor"`
	Lines      []order.Line `json:"lines"`
}

// Reserve implements order.Stock.
func (c Client) Reserve(ctx context.Context, orderID string, lines []order.Line) (order.Reservation, error) {
	body := reserveBody{OrderID: orderID, Lines: make([]reserveLine, len(lines)), TTL: c.ttl()}
	for i, l := range lines {
		body.Lines[i] = reserveLine{l.SKU, l.Quantity}
	}
	resp, err := c.Peer.Do(ctx, peer.Request{
		Method: http.MethodPost, Route: reservations, Path: reservations, Body: body,
	})
	if err != nil {
		return order.Reservation{}, err
	}
	switch resp.Status {
	case http.StatusOK, http.StatusCreated:
		var r reservation
		if err := json.Unmarshal(resp.Body, &r); err != nil {
			return order.Reservation{}, fmt.Errorf("reservation of order %s: %w", orderID, err)
		}
		return order.Reservation(r), nil
	}
	p := resp.Problem()
	switch {
	case is(p, "stock-short"):
		return order.Reservation{}, refusal(resp, &order.ShortError{SKU: p.SKU, Available: p.Available})
	case is(p, "reservation-gone"):
		return order.Reservation{}, fmt.Errorf("%w: %s", order.ErrGone, p.Detail)
	case is(p, "unknown-sku"):
		return order.Reservation{}, refusal(resp, &order.UnknownSKUError{SKU: p.SKU})
	case resp.Status == http.StatusUnprocessableEntity:
		return order.Reservation{}, refusal(resp, fmt.Errorf("%w: %s", order.ErrRefused, p.Detail))
	}
	return order.Reservation{}, unexpected(resp)
}

func refusal(resp *peer.Response, err error) error {
	if resp.Repeated {
		return fmt.Errorf("%w (%w)", err, order.ErrRepeated)
	}
	return err
}

// Extend implements order.Stock.
func (c Client) Extend(ctx context.Context, orderID string) error {
	return c.act(ctx, orderID, "extend", map[string]int{"ttl_s": c.ttl()})
}

// Commit implements order.Stock.
func (c Client) Commit(ctx context.Context, orderID string) error {
	return c.act(ctx, orderID, "commit", nil)
}

// Release implements order.Stock. A reservation that was never made is refused from then on.
func (c Client) Release(ctx context.Context, orderID string) error {
	return c.act(ctx, orderID, "release", nil)
}

func (c Client) act(ctx context.Context, orderID, action string, body any) error {
	resp, err := c.Peer.Do(ctx, peer.Request{
		Method: http.MethodPost,
		Route:  reservations + "/{id}/" + action,
		Path:   reservations + "/" + orderID + "/" + action,
		Body:   body,
	})
	if err != nil {
		return err
	}
	switch resp.Status {
	case http.StatusOK:
		return nil
	case http.StatusConflict:
		return fmt.Errorf("%w: %s", order.ErrGone, resp.Problem().Detail)
	}
	return unexpected(resp)
}

func (c Client) ttl() int { return int(c.Hold.Seconds()) }

func is(p peer.Problem, slug string) bool { return strings.HasSuffix(p.Type, "/"+slug) }

func unexpected(resp *peer.Response) error {
	return fmt.Errorf("product-service gave the unexpected answer %d: %s", resp.Status, resp.Problem().Detail)
}
