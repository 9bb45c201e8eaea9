# The two commands are `make demo` and `make test`; they install what is missing (Debian or Ubuntu, with Rust).

SHELL := /bin/bash
export PATH := $(CURDIR)/target/tools/bin:$(PATH)

.PHONY: help demo test lint proof fuzz campaign test-vm smoke-vm bench tools system build vm

help:
	@echo 'make demo    two hosts on this machine, a cluster, a failover, live (root, /dev/fuse)'
	@echo 'make test    lints and all tests, under 20 minutes (root, /dev/fuse)'
	@echo 'make lint    format, clippy, docs, protos, licences'
	@echo 'make proof   the longer tests, up to 80 minutes'
	@echo 'make fuzz    hostile input for the stream and the files of the replicator, guided by coverage (SECONDS_EACH=60)'
	@echo 'make campaign faults by seed on two hosts (MINUTES=10, SEED=1); a short one is part of test'
	@echo 'make test-vm two virtual machines lose their power, over and over (part of proof); make smoke-vm: once'
	@echo 'make bench   the mirrored directory beside a plain one, bare FUSE, GlusterFS and rsync (BENCH="--help")'
	@echo 'DEMO="--keep" make demo leaves it running until Ctrl-C'

# Programs of the system that demo and benchmarks need.
system:
	@.ci/tools system

# Programs of the tests, besides.
tools: system
	@.ci/tools test

demo: system
	cargo build --release --locked --bins
	@target/release/demo $(DEMO)

lint: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --workspace --no-deps --document-private-items --locked
	cd proto && buf lint
	cargo deny --all-features check bans licenses sources

# The programs under test are found beside the tests.
build:
	cargo build --workspace --bins --locked

test: lint build
	cargo nextest run --workspace --locked
	cargo test --workspace --doc --locked

proof: tools build
	@.ci/tools proof
	cargo nextest run --workspace --locked --profile proof --run-ignored ignored-only -E 'not binary(power_loss)'
	$(MAKE) test-vm

# On a stable compiler; sanitizers need another one.
SECONDS_EACH ?= 60

fuzz: tools
	@.ci/tools fuzz
	cd replicator/fuzz && for target in frames journal epoch; do \
		RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . --sanitizer none --features libfuzzer $$target \
			$(CURDIR)/target/fuzz/$$target corpus/$$target -- -max_total_time=$(SECONDS_EACH) -max_len=4096 -rss_limit_mb=1024 \
			-print_final_stats=1 || exit 1; \
	done

MINUTES ?= 10

campaign: tools build
	@target/debug/campaign --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# The machines are slow where the processor is emulated: what runs in them is the optimised build.
vm:
	@.ci/tools vm
	cargo build --release --bins --locked

VM = SAFE_BIN_DIR=$(CURDIR)/target/release cargo nextest run -p safe-integration --test power_loss --locked --profile proof \
	--run-ignored ignored-only

test-vm: tools vm
	$(VM) -E 'not test(smoke)'

smoke-vm: tools vm
	$(VM) -E 'test(smoke)'

bench:
	@.ci/tools bench
	cargo build --release --locked --bins
	@target/release/bench $(BENCH)
