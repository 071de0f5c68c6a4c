# make test    everything that must pass: format, lints, docs, all tests (installs what the tests need)
# make lint    the same without the tests
# make test-charts  the Helm charts alone (helm 3 and 4, kubernetes-validate, promtool)
# make test-image   builds the image and runs the rendered Deployment with podman (as root; not a part of make test)
# make demo    the trading desk, on https://127.0.0.1:8443/

CARGO ?= cargo

.PHONY: test lint demo tools test-charts test-image

# The whole-program tests come last: their summary ends the output. The browser tests need Chromium.
test: tools lint test-charts
	$(CARGO) test --doc
	$(CARGO) test --lib --bins
	$(CARGO) test --test it

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps

test-charts: tools
	$(CARGO) build
	scripts/test-charts

test-image: tools
	scripts/test-image

demo:
	$(CARGO) run --release -- demo

tools:
	scripts/install-test-tools
