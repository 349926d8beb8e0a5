// Package payment is the client of the Payment Service.
package payment

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"prove/order-service/internal/order"
	"prove/order-service/internal/peer"
)

const payments = "api/v1/payments"

// Client implements order.Payments.
type Client struct{ Peer *peer.Client }

var _ order.Payments = Client{}

type chargeBody struct {
	OrderID     string `json:"order_id"`
	AmountMinor int64  `json:"amount_minor"`
	Currency    string `json:"currency"`
	MethodToken string `json:"method_token"`
}

type payment struct {
	ID            string `json:"id"`
	Status        string `json:"status"`
	DeclineReason string `json:"decline_reason"`
}

// Charge implements order.Payments.
func (c Client) Charge(ctx context.Context, ch order.Charge, wait time.Duration) (order.Payment, error) {
	resp, err := c.post(ctx, payments, ch, wait)
	if err != nil {
		return order.Payment{}, err
	}
	switch resp.Status {
	case http.StatusOK, http.StatusCreated, http.StatusAccepted:
		return outcome(resp)
	case http.StatusPaymentRequired:
		// Anybody else's 402 leaves open what became of the charge.
		if p := resp.Problem(); strings.HasSuffix(p.Type, "/declined") {
			return order.Payment{ID: p.PaymentID, Declined: true, Reason: p.Reason}, nil
		}
	case http.StatusConflict:
		if p := resp.Problem(); strings.HasSuffix(p.Type, "/cancelled") { // which is final
			return order.Payment{ID: p.PaymentID, Declined: true, Reason: "cancelled"}, nil
		}
	}
	return order.Payment{}, refusal(resp)
}

// Cancel implements order.Payments.
func (c Client) Cancel(ctx context.Context, ch order.Charge, wait time.Duration) (bool, error) {
	resp, err := c.post(ctx, payments+"/cancel", ch, wait)
	if err != nil {
		return false, err
	}
	switch resp.Status {
	case http.StatusOK:
		return true, nil
	case http.StatusAccepted:
		return false, nil
	}
	return false, refusal(resp)
}

// post gives an attempt a second more than the payment may wait: it answers "pending" before it is
// given up.
func (c Client) post(ctx context.Context, path string, ch order.Charge, wait time.Duration) (*peer.Response, error) {
	return c.Peer.Do(ctx, peer.Request{
		Method: http.MethodPost, Route: path, Path: path, Timeout: wait + time.Second,
		Body: chargeBody{ch.OrderID, ch.AmountMinor, ch.Currency, ch.Method},
		Header: map[string]string{
			"Idempotency-Key": ch.Key,
			"Prefer":          "wait=" + strconv.Itoa(int(wait.Seconds())),
		},
	})
}

func outcome(resp *peer.Response) (order.Payment, error) {
	var p payment
	if err := json.Unmarshal(resp.Body, &p); err != nil {
		return order.Payment{}, fmt.Errorf("payment-service: %w", err)
	}
	switch p.Status {
	case "captured":
		return order.Payment{ID: p.ID, Captured: true}, nil
	case "declined", "failed":
		reason := p.DeclineReason
		if reason == "" {
			reason = p.Status
		}
		return order.Payment{ID: p.ID, Declined: true, Reason: reason}, nil
	case "pending":
		return order.Payment{ID: p.ID}, nil
	}
	return order.Payment{}, fmt.Errorf("payment-service: payment %s is %q", p.ID, p.Status)
}

// refusal is ErrRefused where the Payment Service itself says that no such charge is ever accepted. A
// key used for another charge means that there is a charge: that is none.
func refusal(resp *peer.Response) error {
	p := resp.Problem()
	if resp.Status == http.StatusUnprocessableEntity && strings.HasSuffix(p.Type, "/validation") {
		return fmt.Errorf("%w: %s", order.ErrRefused, p.Detail)
	}
	return fmt.Errorf("payment-service gave the unexpected answer %d: %s", resp.Status, p.Detail)
}
