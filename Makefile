# prove: `make demo` shows it, `make test` checks it, `make bench` measures it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
GO     ?= go
# The shop's own Go programs; tools/ only pins other people's.
GO_MODULES  := services/order-service simulators/acquirer
PY_PACKAGES := libs/service-kit services/product-service services/payment-service .
PY_SOURCES  := src libs services tests
WORKERS ?= 4

# Compiles crash points and seeded bugs in: never shipped.
TEST_TAG := prove_test

.PHONY: help setup demo up down test check check-go check-python check-generated test-go test-python bench bench-rca prove lock clean
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(VENV)/.runtime ## The Python environment (.venv) and the servers, built once and cached
	@$(BIN)/provectl tools build

demo: setup ## The whole story: shop up, real goods in, load on, an order traced, an incident to its review
	@$(BIN)/provectl demo

up: setup ## Start the shop and its observability, and leave them running
	@$(BIN)/provectl up --detach

down: ## Stop what `make up` started
	@$(BIN)/provectl down

test: check test-go test-python ## All checks, unit, contract, fuzz and end-to-end tests: about twenty minutes

check: check-go check-python check-generated ## Formatting, types, static analysis, cross-compilation, generated files

check-go: $(VENV)/.dev
	@for m in $(GO_MODULES); do \
	  echo "== $$m: gofmt, vet, staticcheck, cross-compile"; \
	  unformatted=$$(gofmt -l $$m); [ -z "$$unformatted" ] || { echo "run gofmt -w $$unformatted"; exit 1; }; \
	  staticcheck=$$(cd tools/staticcheck && $(GO) tool -n staticcheck) || exit 1; \
	  (cd $$m && $(GO) vet ./... && "$$staticcheck" ./... \
	    && $(GO) vet -tags $(TEST_TAG) ./... && "$$staticcheck" -tags $(TEST_TAG) ./... \
	    && CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/... \
	    && CGO_ENABLED=0 GOOS=linux GOARCH=arm64 $(GO) build -o /dev/null ./cmd/...) || exit 1; \
	done

check-python: $(VENV)/.dev
	@$(BIN)/ruff check $(PY_SOURCES)
	@$(BIN)/ruff format --check $(PY_SOURCES)
	@# one run a service: each has a tests/conftest.py
	@for of in 'src libs tests' services/product-service services/payment-service; do $(BIN)/mypy $$of || exit 1; done

check-generated: $(VENV)/.runtime
	@$(BIN)/provectl slo build observability/slos/*.yaml -o observability/alerts --check
	@$(BIN)/provectl dashboards build --check
	@$(BIN)/provectl incident schema | cmp - incidents/scenario.schema.json
	@$(BIN)/provectl incident lint

test-go:
	@for m in $(GO_MODULES); do echo "== $$m: go test -race"; (cd $$m && $(GO) test -race -timeout 20m ./...) || exit 1; done
	@echo "== seeded bugs: go test -race -tags $(TEST_TAG)"
	@cd services/order-service && $(GO) test -race -tags $(TEST_TAG) ./cmd/... -run TestMutants

test-python: $(VENV)/.dev
	@$(BIN)/provectl tools build
	@$(BIN)/pytest -n $(WORKERS) --dist loadgroup

bench: setup $(VENV)/.dev ## Measure, side by side, and write docs/benchmarks.md (about 30 minutes)
	@$(BIN)/provectl bench

# The labelled incidents of others, which are no part of the repository.
SHARED := $(or $(PROVE_SHARED),../shared)
bench-rca: $(VENV)/.runtime ## How often root causes are found, into docs/evidence/rca.md (a few minutes)
	@$(BIN)/provectl rca score $(SHARED)/rca/bundles --truth $(SHARED)/rca/truth --stability \
	  --report docs/evidence/rca.md

prove: setup ## The full-size proofs, hours of them: the same command goes on where it was stopped
	@for db in sqlite postgres; do $(BIN)/provectl verify orders --orders 100000 --kills 1000 --partitions \
	  --recovery-p99 10s --database $$db --resume .prove/full-$$db --report docs/evidence || exit 1; done
	@for db in sqlite postgres; do $(BIN)/provectl verify mutants --database $$db --report docs/evidence || exit 1; done
	@$(BIN)/provectl verify faults --kills 200 --report docs/evidence
	@$(BIN)/provectl verify slos --all --soak 1h --resume .prove/slos --report docs/evidence
	@for seed in 1 2; do $(BIN)/provectl incident run --all --seed $$seed --report docs/evidence || exit 1; done
	@$(BIN)/provectl rca collect -o .prove/rca-own --seed 1
	@$(BIN)/provectl rca score .prove/rca-own/bundles --truth .prove/rca-own/truth --report docs/evidence/rca-own.md

lock: $(VENV)/.dev ## Pin requirements/*.in again, with hashes
	cd requirements && for f in runtime dev; do ../$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe \
	  --strip-extras --no-emit-index-url --no-emit-find-links --no-header -o $$f.txt $$f.in; done

clean: ## Remove the environment; built servers stay in the cache (`provectl tools list` shows where)
	rm -rf $(VENV)

# Two stamps: the demo installs what it runs, the tests what they add.
$(VENV)/.runtime: requirements/runtime.txt pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "prove needs Python 3.11 or newer: make PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@echo "installing the Python packages of requirements/runtime.txt into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  $(foreach p,$(PY_PACKAGES),-e $(p))
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	@echo "installing the Python packages of requirements/dev.txt into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@
