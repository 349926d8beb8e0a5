package httpapi

import "prove/acquirer/internal/ledger"

// behaviour is what a test token makes the acquirer do.
type behaviour struct {
	status string
	reason string
	slow   bool // answered only once SlowFor has passed since the charge was booked
	mute   bool // booked, but the connection drops instead of the first answer
}

// behaviours of the well-known test tokens; any other token is refused.
var behaviours = map[string]behaviour{
	"tok_approve":       {status: ledger.StatusApproved},
	"tok_decline":       {status: ledger.StatusDeclined, reason: "card_declined"},
	"tok_decline_funds": {status: ledger.StatusDeclined, reason: "insufficient_funds"},
	"tok_slow":          {status: ledger.StatusApproved, slow: true},
	"tok_unknown":       {status: ledger.StatusApproved, mute: true},
}
