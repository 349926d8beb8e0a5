package httpapi

import (
	"testing"

	"github.com/google/uuid"
)

func FuzzDecodeCursor(f *testing.F) {
	f.Add(encodeCursor(uuid.NewString()))
	f.Add("")
	f.Add("AAAA")
	f.Add("!!!!!!!!!!!!!!!!!!!!!!")
	f.Fuzz(func(t *testing.T, cursor string) {
		id, ok := decodeCursor(cursor)
		if !ok {
			return
		}
		if _, err := uuid.Parse(id); err != nil {
			t.Fatalf("%q gave the id %q", cursor, id)
		}
		if again := encodeCursor(id); len(again) != len(cursor) {
			t.Fatalf("%q came back as %q", cursor, again)
		}
	})
}

func TestCursorRoundTrip(t *testing.T) {
	for range 100 {
		id := uuid.Must(uuid.NewV7()).String()
		got, ok := decodeCursor(encodeCursor(id))
		if !ok || got != id {
			t.Fatalf("%s came back as %s, %v", id, got, ok)
		}
	}
}

func TestTemplate(t *testing.T) {
	for path, want := range map[string]string{
		"": "", "/api/v1/orders": "/api/v1/orders", "/api/v1/orders/:id/cancel": "/api/v1/orders/{id}/cancel",
	} {
		if got := template(path); got != want {
			t.Errorf("%q: got %q, want %q", path, got, want)
		}
	}
}
