# "make help" lists the targets. Everything that is downloaded or built besides Go's own caches goes to .cache and bin.

GO ?= go
GOLANGCI_LINT_VERSION := v2.15.0
NFPM_VERSION := v2.43.4
NFPM := $(CURDIR)/.cache/nfpm-$(NFPM_VERSION)/nfpm
GOLANGCI_LINT := .cache/golangci-lint-$(GOLANGCI_LINT_VERSION)/golangci-lint
MQTTJS := test/mqttjs/node_modules/.package-lock.json
AXE := test/page/node_modules/.package-lock.json
FUZZTIME ?= 30s
SOAKTIME ?= 10m
BENCHTIME ?= 5s
REPEAT ?= 3
CASES ?=
BENCHFLAGS ?=

export GO
export NFPM
# Debian keeps mosquitto in /usr/sbin, which is not in everybody's path.
export PATH := $(PATH):/usr/sbin

.DEFAULT_GOAL := build
.NOTPARALLEL:

.PHONY: build
build: ## build bin/bridged
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bridged ./cmd/bridged

.PHONY: test
test: setup lint unit e2e ## everything: install what is missing, lint, unit tests, end-to-end tests

.PHONY: setup
setup: $(GOLANGCI_LINT) $(NFPM) $(MQTTJS) $(AXE) ## install what the tests need: Debian packages, golangci-lint, nfpm, MQTT.js, axe

.PHONY: packages
packages:
	scripts/setup

$(GOLANGCI_LINT):
	GOBIN=$(CURDIR)/$(@D) GOFLAGS= CGO_ENABLED=0 $(GO) install -trimpath \
		github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)

$(NFPM):
	GOBIN=$(@D) GOFLAGS= CGO_ENABLED=0 $(GO) install -trimpath \
		github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)

$(MQTTJS): test/mqttjs/package.json test/mqttjs/package-lock.json | packages
	cd test/mqttjs && npm ci --no-progress --loglevel=error
	@touch $@

$(AXE): test/page/package.json test/page/package-lock.json | packages
	cd test/page && npm ci --no-progress --loglevel=error
	@touch $@

.PHONY: lint
lint: $(GOLANGCI_LINT) ## gofmt, go vet, go mod tidy, golangci-lint
	@unformatted=$$($$($(GO) env GOROOT)/bin/gofmt -l $$($(GO) list -f '{{.Dir}}' ./...)); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GOLANGCI_LINT) run ./...

.PHONY: unit
unit: packages ## unit tests with the race detector, fuzz seeds included
	scripts/gotest -race $$($(GO) list ./... | grep -v /test/)

.PHONY: e2e
e2e: $(MQTTJS) $(AXE) $(NFPM) packages ## end-to-end tests against real peers
	scripts/gotest -race -p 1 -count=1 ./test/... # one after the other, and anew: they test a program that they build

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (default 30s)
	@set -e; for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
		done; done

.PHONY: soak
soak: packages ## bridged under random faults of every kind for SOAKTIME (default 10m)
	$(GO) test -count 1 -timeout 0 -v -run TestSoak ./test/soak -soak.time $(SOAKTIME)

.PHONY: bench
bench: ## bridged beside a tunnel and mosquitto: docs/performance.md has the table; CASES, BENCHTIME, REPEAT, BENCHFLAGS
	$(GO) run ./bench -time $(BENCHTIME) -repeat $(REPEAT) -cases '$(CASES)' $(BENCHFLAGS)

.PHONY: bench-durability
bench-durability: ## the figures in docs/durability.md: storing, starting with a large backlog
	$(GO) test -run '^$$' -bench . -benchtime 1x ./test/crash

.PHONY: docs
docs: ## write what is generated: docs/configuration.md
	$(GO) run ./cmd/gendocs configuration >docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md

.PHONY: dist
dist: $(NFPM) ## binaries, .deb and .rpm for every architecture, with SHA256SUMS, in dist
	scripts/dist

.PHONY: demo
demo: build ## the bridge, simulated clouds and devices in one process
	bin/bridged demo

.PHONY: clean
clean: ## remove what was built and downloaded here
	rm -rf bin dist .cache test/mqttjs/node_modules test/page/node_modules

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
