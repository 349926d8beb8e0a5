package httpapi

import (
	"context"
	"net"
	"net/http"
	"time"
)

type bornKey struct{}

// Born is an http.Server's ConnContext: it notes when a connection was accepted.
func Born(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, bornKey{}, time.Now())
}

// Aged answers the next request of a connection that is older than limit with `Connection: close`, so that
// its client opens another one, perhaps to a replica that is new. No request is lost. limit <= 0: never.
func Aged(next http.Handler, limit time.Duration) http.Handler {
	if limit <= 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if born, ok := r.Context().Value(bornKey{}).(time.Time); ok && time.Since(born) > limit {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}
