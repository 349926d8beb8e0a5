package main

// main*.go and components.go are generated from builder.yaml by the OpenTelemetry Collector Builder
// and checked in, so that building needs `go build` alone; after a change run `go generate`.
// go.mod is ours: the builder would run `go mod tidy`, which wants what only upstream tests need.
//
//go:generate go run go.opentelemetry.io/collector/cmd/builder@v0.155.0 --config=builder.yaml --skip-get-modules --skip-compilation
