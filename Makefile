# Two commands are enough: `make run` and `make test`. See README.md.

LISTEN ?= 127.0.0.1:8080
TARGET ?=
FLAGS  ?=

# Three to four minutes on two processors.
BENCHFLAGS ?= --path direct,gocopy,copy,splice,sockmap,wire,auto,haproxy,haproxy-splice,nginx,socat \
	--proxy 'run=env LISTEN={listen} TARGET={target} bin/spliced run -c docs/bench-run.yaml' \
	--workload bulk,rr,conn,idle --rounds 5 --duration 400ms
GO     ?= go
OTHERS := darwin freebsd windows

# The race detector needs a C compiler; everything else needs Go only.
HAVE_CC := $(shell command -v $$($(GO) env CC) 2>/dev/null)
RACE    := $(if $(HAVE_CC),-race,)

.PHONY: build run test quick bench lint cross generate generated peers clean FORCE

build: bin/spliced

# Go's own cache knows best what is out of date.
bin/spliced: FORCE
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -o $@ ./cmd/spliced

# The relay, on LISTEN, towards TARGET (one or more); without TARGET towards a
# small HTTP server of its own.
run: build
	@exec bin/spliced relay $(FLAGS) $(LISTEN) $(TARGET)

# Tests that compare measured figures want the machine for themselves, and no
# race detector: they run last and alone.
MEASURING := ./internal/netbench

# Everything. With SPLICED_REQUIRE (a list out of root,bpf,netns,fuse,mptcp,cpus,peers) a check
# that can't run for want of one of these fails instead of being skipped. One
# package at a time: they load the machine themselves, and wait for events that
# a busy neighbour delays.
test: lint cross peers generated
	@[ -n "$(RACE)" ] || echo "no C compiler: testing without the race detector"
	$(GO) build $(RACE) ./...
	scripts/go-test -p 1 $(RACE) -timeout 12m $$($(GO) list ./... | grep -v /netbench)
	scripts/go-test $(RACE) -short -timeout 5m $(MEASURING)
	scripts/go-test -timeout 5m $(MEASURING)

# The inner loop: what needs neither root nor patience.
quick:
	$(GO) test -short ./...

# The figures of docs/benchmarks.md, measured anew on this machine.
bench: build
	bin/spliced bench net $(BENCHFLAGS) --json bench.json --html bench.html
	bin/spliced bench report bench.json --markdown docs/benchmarks.md --svg docs/benchmarks

lint:
	@out=$$($(GO) tool gofumpt -l .) && [ -z "$$out" ] || { echo "not formatted (go tool gofumpt -w .):"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	@for os in $(OTHERS); do echo "GOOS=$$os $(GO) vet ./..."; GOOS=$$os $(GO) vet ./... || exit 1; done
	$(GO) tool staticcheck ./...

cross:
	@for os in $(OTHERS); do echo "GOOS=$$os $(GO) build ./..."; GOOS=$$os $(GO) build ./... || exit 1; done
	@for arch in arm arm64; do echo "GOARCH=$$arch $(GO) build ./..."; GOOS=linux GOARCH=$$arch $(GO) build ./... || exit 1; done

generate:
	$(GO) generate ./...

# What is generated and committed is what its sources give. Needs the compiler
# that the peers bring; objects of another clang than Debian's 14 may differ.
generated:
	@case ",$(SPLICED_REQUIRE)," in *,peers,*) $(GO) generate ./... && git diff --exit-code --stat -- '*_bpfe?.*' '*_gen.go' || \
		{ echo "generated files differ from what is committed: run make generate"; exit 1; } ;; esac

# Programs that the tests compare with: installed only when asked for by name.
peers:
	@case ",$(SPLICED_REQUIRE)," in *,peers,*) scripts/install-peers ;; esac

clean:
	rm -rf bin
