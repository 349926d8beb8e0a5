package telemetry

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
)

func TestNoCardNumberIsInALine(t *testing.T) {
	var out bytes.Buffer
	log := NewLogger(&out, "x-service", slog.LevelInfo, nil)
	ctx := WithRequestID(t.Context(), "4111111111111111")
	const id = "01a20b84-8953-766d-8c75-7ac578dc0a9c"
	log.With("with", "5500-0000-0000-0004").WithGroup("group").InfoContext(ctx, "paid by 4111 1111 1111 1111",
		"order_id", id, "error", errors.New("no 378282246310005 here"), "odd", []int{1})
	// Of a time any digits may be part.
	line := regexp.MustCompile(`"ts":"[^"]*"`).ReplaceAllString(out.String(), "")
	for _, card := range []string{"4111", "5500", "37828"} {
		if strings.Contains(line, card) {
			t.Errorf("%s is in %s", card, line)
		}
	}
	for _, kept := range []string{`"event":"paid by ****"`, `"no **** here"`, id, `"****"`} {
		if !strings.Contains(line, kept) {
			t.Errorf("%s is not in %s", kept, line)
		}
	}
}
