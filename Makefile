# build, run, test, check, bench: all there is to know to work here.

TARGET := $(or $(CARGO_TARGET_DIR),target)
OTTLA := $(TARGET)/release/ottla
CLIENTS := $(TARGET)/clients
CRATES_MAX := 20

.PHONY: build run test check unit clients bench ceiling rot clean

build:
	cargo build --release

# A broker with its defaults on 127.0.0.1:9092, its data in ./data.
run: build
	$(OTTLA) serve --data data --listen 127.0.0.1:9092

# Everything that must hold, from formatting to real clients, groups of them, and programs that people run on Kafka.
test: check unit clients

# Formatting, lints, and few dependencies.
check:
	cargo fmt --check
	cargo clippy --all-targets --quiet -- --deny warnings
	@crates=$$(cargo tree --edges normal --prefix none | sed 's/ (\*)$$//' | sort -u | wc -l); \
	echo "crates in the binary, itself included: $$crates (at most $(CRATES_MAX))"; \
	test $$crates -le $(CRATES_MAX)

# Unit, property and integration tests: needs Rust and a C compiler only.
unit:
	cargo test

# The real clients and programs, unmodified, against the release build.
clients: build
	tests/clients/install.sh $(CLIENTS)
	cargo build --quiet --example rdkafka_client
	python3 tests/clients/run.py --broker $(OTTLA) --installed $(CLIENTS) --rdkafka $(TARGET)/debug/examples/rdkafka_client

bench:
	cargo bench --bench clean --bench durable --bench fetch --bench idle --bench produce --bench recover --bench start

# A minute of 200 busy connections, hostile ones among them, against the whole broker in 32 MiB.
ceiling: build
	OTTLA_BROKER=$(OTTLA) OTTLA_SECONDS=60 cargo test --test ceiling -- --nocapture

clean:
	cargo clean

# Thousands of bytes of a data directory that rot at rest, one by one, each with a start and a scrub.
rot: build
	OTTLA_BROKER=$(abspath $(OTTLA)) OTTLA_ROT_ROUNDS=400 cargo test --test rot -- --nocapture a_flip
