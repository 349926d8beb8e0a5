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

// Client implements order.Payments. Wait is how long a charge may wait for the acquirer; the
// peer's timeout for one attempt should be longer.
type Client struct {
	Peer *peer.Client
	Wait time.Duration
}

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
func (c Client) Charge(ctx context.Context, ch order.Charge) (order.Payment, error) {
	resp, err := c.Peer.Do(ctx, peer.Request{
		Method: http.MethodPost, Route: payments, Path: payments,
		Body: chargeBody{ch.OrderID, ch.AmountMinor, ch.Currency, ch.Method},
		Header: map[string]string{
			"Idempotency-Key": ch.OrderID,
			"Prefer":          "wait=" + strconv.Itoa(int(c.Wait.Seconds())),
		},
	})
	if err != nil {
		return order.Payment{}, err
	}
	switch resp.Status {
	case http.StatusOK, http.StatusCreated, http.StatusAccepted:
		return outcome(resp)
	case http.StatusPaymentRequired:
		p := resp.Problem()
		return order.Payment{ID: p.PaymentID, Declined: true, Reason: p.Reason}, nil
	case http.StatusUnprocessableEntity:
		// A key used for another charge means that there is a charge: that is no refusal.
		if p := resp.Problem(); !strings.HasSuffix(p.Type, "/key-reused") {
			return order.Payment{}, fmt.Errorf("%w: %s", order.ErrRefused, p.Detail)
		}
	}
	return order.Payment{}, unexpected(resp)
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

// Refund implements order.Payments.
func (c Client) Refund(ctx context.Context, paymentID string) (bool, error) {
	resp, err := c.Peer.Do(ctx, peer.Request{
		Method: http.MethodPost,
		Route:  payments + "/{id}/refund",
		Path:   payments + "/" + paymentID + "/refund",
	})
	if err != nil {
		return false, err
	}
	switch resp.Status {
	case http.StatusOK:
		return true, nil
	case http.StatusAccepted:
		return false, nil
	}
	return false, unexpected(resp)
}

func unexpected(resp *peer.Response) error {
	return fmt.Errorf("payment-service gave the unexpected answer %d: %s", resp.Status, resp.Problem().Detail)
}
