# build, run, test, check, bench, and the long targets: all there is to know to work here.

TARGET := $(or $(CARGO_TARGET_DIR),target)
OTTLA := $(TARGET)/release/ottla
CLIENTS := $(TARGET)/clients
CRATES_MAX := 20

.PHONY: build run test check unit clients bench crash certificate faults rot fuzz flood ceiling soak clean

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

# The long targets below run against the release build, say how far they are, and end with one line of figures.

# A real workload cut off from power at CUTS places (20,000), each recovered by the real binary. Some ten minutes.
crash: build
	OTTLA_BROKER=$(abspath $(OTTLA)) OTTLA_CRASH_CUTS=$(or $(CUTS),20000) cargo test --quiet --test crash

# The same, and a plain report of it: target/certificate.txt.
certificate: export OTTLA_CRASH_REPORT := $(abspath $(TARGET))/certificate.txt
certificate: crash

# Every call of a small life of a broker to its disk fails, in each of twenty ways: half an hour. FAULTS=1000 tries so
# many by chance. The brokers' own logs go to target/faults.log.
faults: build
	OTTLA_BROKER=$(abspath $(OTTLA)) OTTLA_FAULTS=$(or $(FAULTS),all) cargo test --quiet --test faults -- --nocapture 2>$(TARGET)/faults.log

# Thousands of bytes of a data directory that rot at rest, each with a start and a scrub.
rot: build
	OTTLA_BROKER=$(abspath $(OTTLA)) OTTLA_ROT_ROUNDS=$(or $(ROUNDS),400) cargo test --quiet --test rot -- --nocapture a_flip

# libFuzzer on every reader of what strangers send and disks damage: FUZZ_SECONDS each (20), FUZZ_SEED, FUZZ_TARGETS.
fuzz:
	tests/fuzz/run.sh $(TARGET)

# Ten thousand slow sockets, and connections at full speed: what a client that was there before notices.
flood: build
	OTTLA_BROKER=$(abspath $(OTTLA)) OTTLA_FLOOD_SOCKETS=10000 OTTLA_FLOOD_PAIRS=9 cargo test --quiet --test hostile flood:: -- --nocapture

# A minute of 200 busy connections, hostile ones among them, against the whole broker in 32 MiB.
ceiling: build
	OTTLA_BROKER=$(abspath $(OTTLA)) OTTLA_SECONDS=60 cargo test --quiet --test ceiling -- --nocapture

# Ten minutes of all clients at once, while they and the broker are killed; at the end all is read back.
soak: build
	tests/clients/install.sh $(CLIENTS)
	cargo build --quiet --example rdkafka_client
	python3 tests/clients/run.py --broker $(OTTLA) --installed $(CLIENTS) --rdkafka $(TARGET)/debug/examples/rdkafka_client --seconds $(or $(SECONDS),600) soak

clean:
	cargo clean
