# make test                everything that must pass: format, lints, docs, all tests (installs what the tests need)
# make lint                the same without the tests
# make bench               measures it beside other push servers (ROUNDS=3 ROWS=regex PEERS=regex); writes docs/performance.md
# make bench-instructions  counts instructions of the hot paths, against those accepted (part of make test)
# make bench-memory        writes where each byte of a waiting session is into docs/performance.md
# make test-charts         the Helm charts alone (helm 3 and 4, kubernetes-validate, promtool)
# make test-kafka          Kafka's bus on Apache Kafka itself (needs Java 17 and Maven; part of make test where both are there)
# make test-image          builds the image and runs the rendered Deployment with podman (needs root; not a part of make test)
# make bench-buses         writes what each bus costs into docs/performance.md (Redis, NATS, and Kafka where it is installed)
# make demo                the trading desk, on https://127.0.0.1:8443/

CARGO ?= cargo

.PHONY: test lint bench bench-load bench-instructions bench-memory bench-buses demo tools test-charts test-image test-kafka

# The whole-program tests come last: their summary ends the output. The browser tests need Chromium.
test: tools lint test-charts
	@echo 'the image is no part of this: make test-image (root, podman)'
	$(CARGO) test --doc
	$(CARGO) test --lib --bins --features kube
	python3 bench/instructions.py
	@if scripts/install-kafka --there; then $(MAKE) test-kafka; fi
	$(CARGO) test --test it

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --lib --tests --features kube -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps

ROUNDS ?= 3
ROWS ?= .
PEERS ?= .

# No target of `test` or `lint` builds the load generator: it is a crate of its own.
bench: bench-load
	$(CARGO) build --release
	python3 bench/run.py --rounds $(ROUNDS) --rows '$(ROWS)' --peers '$(PEERS)'

bench-load:
	$(CARGO) build --release --locked --manifest-path bench/load/Cargo.toml --target-dir target/load

# The program as the whole-program tests have it: built alone, its dependencies would be built once more, with fewer features.
test-charts: tools
	$(CARGO) test --no-run --test it
	scripts/test-charts

test-kafka:
	scripts/install-kafka
	$(CARGO) test --lib --features kube -- --ignored bus::kafka::tests::broker
	$(CARGO) test --test it -- --ignored shared_bus::broker

test-image: tools
	scripts/test-image

bench-instructions: tools
	python3 bench/instructions.py

bench-memory:
	python3 bench/memory.py

bench-buses: bench-load
	$(CARGO) build --release
	scripts/install-kafka
	python3 bench/buses.py

demo:
	$(CARGO) run --release -- demo

tools:
	scripts/install-test-tools
