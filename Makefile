# Plimsoll: everything a newcomer needs. `make demo` and `make test` install what is missing and say so.

CARGO ?= cargo
export PATH := $(CURDIR)/.tools/bin:$(PATH)

.PHONY: help tools databases build install demo test table prove bench fmt lint clean

help:  ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

tools:  ## Put nats-server into .tools/bin if it is not there
	@deploy/setup/install-tools.sh

databases:  ## Put what the storage tests run against into .tools/databases if it is not there
	@deploy/setup/install-databases.sh

build:  ## Build the binaries
	$(CARGO) build --release --workspace --bins

install:  ## Install what `make build` made: programs, completions, manual pages and the agent's unit (PREFIX, DESTDIR)
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" deploy/install.sh

demo: tools build  ## Find the capacity of a stand-in backend with two agents
	@deploy/demo.sh

test: tools databases build  ## Run all tests
	$(CARGO) test --release --workspace --exclude plimsoll-tests
	$(CARGO) test --release -p plimsoll-tests -- --test-threads=2 alone::
	$(CARGO) test --release -p plimsoll-tests -- --test-threads=6 --skip alone::

table: tools  ## Print how often the search is right, beside simpler methods, on simulated queues
	$(CARGO) run --release -p plimsoll-tests --bin search-table

prove: tools databases build  ## Run the long versions of the proofs; PROOFS=answer:: takes those of one module
	PLIMSOLL_PROVE=1 $(CARGO) test --release -p plimsoll-tests --test suite -- --test-threads=1 $(PROOFS)

bench: tools  ## Run every benchmark
	$(CARGO) bench -p plimsoll-common --bench histogram
	$(CARGO) bench -p plimsoll-agent --bench record
	$(CARGO) bench -p plimsoll-agent --bench custom
	$(CARGO) bench -p plimsoll --bench merge
	$(CARGO) bench -p plimsoll-tests --bench standin
	$(CARGO) bench -p plimsoll-tests --bench agent -- all 3
	$(CARGO) bench -p plimsoll-tests --bench fleet

fmt:  ## Format the code
	$(CARGO) fmt --all

lint:  ## What CI checks of the code's form
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

clean:  ## Remove what was built
	$(CARGO) clean
