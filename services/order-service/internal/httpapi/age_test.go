package httpapi

import (
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"testing"
	"time"
)

// connections tells how many of n requests, one after the other, needed a connection of their own.
func connections(t *testing.T, limit time.Duration, n int) int {
	server := httptest.NewUnstartedServer(Aged(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), limit))
	server.Config.ConnContext = Born
	server.Start()
	t.Cleanup(server.Close)
	opened := 0
	for range n {
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
			if !info.Reused {
				opened++
			}
		}}
		request, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
	}
	return opened
}

func TestAnOldConnectionIsReplaced(t *testing.T) {
	if opened := connections(t, time.Nanosecond, 3); opened != 3 {
		t.Errorf("3 requests took %d connections, each of which was too old for another", opened)
	}
}

func TestAYoungConnectionIsKept(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Hour} {
		if opened := connections(t, limit, 3); opened != 1 {
			t.Errorf("limit %v: 3 requests took %d connections", limit, opened)
		}
	}
}
