# make test    everything that must pass: format, lints, docs, all tests (installs what the tests need)
# make lint    the same without the tests
# make demo    the trading desk, on https://127.0.0.1:8443/

CARGO ?= cargo

.PHONY: test lint demo tools

# The whole-program tests come last: their summary ends the output. The browser tests need Chromium.
test: tools lint
	$(CARGO) test --doc
	$(CARGO) test --lib --bins
	$(CARGO) test --test it

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps

demo:
	$(CARGO) run --release -- demo

tools:
	scripts/install-test-tools
