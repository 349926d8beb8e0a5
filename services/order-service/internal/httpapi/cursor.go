package httpapi

import (
	"encoding/base64"

	"github.com/google/uuid"
)

// A cursor is the id of the last order of a page; to clients it is opaque.

func encodeCursor(id string) string {
	u, err := uuid.Parse(id)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(u[:])
}

func decodeCursor(cursor string) (id string, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil {
		return "", false
	}
	u, err := uuid.FromBytes(raw)
	if err != nil {
		return "", false
	}
	return u.String(), true
}
