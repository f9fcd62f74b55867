# Requires make and python3 (3.11 or newer); everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BUNDLE := demo/bundle

.DEFAULT_GOAL := help
.PHONY: help install run demo test servers lint format bench lock audit

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## install the pinned versions into .venv

$(INSTALLED): requirements.lock requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vip5-serve requires Python 3.11 or newer; choose one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

run: $(INSTALLED) ## serve the demonstration on http://127.0.0.1:8000
	$(BIN)/vip5 serve --bundle $(BUNDLE)

demo: $(INSTALLED) ## rebuild the demonstration from scratch; takes half an hour or more
	rm -rf $(BUNDLE) $(BUNDLE)-text $(BUNDLE)-clip $(BUNDLE)-pictures $(BUNDLE)-held-out $(BUNDLE)-work $(BUNDLE)-requests.jsonl
	$(BIN)/python -m demo.make --out $(BUNDLE)

test: $(INSTALLED) servers ## run all tests
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# Tests of the feature store and of the metrics use real servers, and are skipped without them.
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo -n)
servers: ## install redis-server and prometheus with apt if they are missing
	@{ command -v redis-server && command -v redis-sentinel; } >/dev/null \
		|| { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server redis-sentinel >/dev/null; } \
		|| echo "redis-server is missing and could not be installed; tests that need it will be skipped" >&2
	@{ command -v prometheus && command -v promtool; } >/dev/null \
		|| { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null; } \
		|| echo "prometheus is missing and could not be installed; tests that need it will be skipped" >&2

lint: $(INSTALLED) ## check style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## fix style and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## compare the engines with transformers' generate
	$(BIN)/python -m benchmarks.cpu_engine

# Pins the newest versions that pyproject.toml allows, except for torch, whose newer builds add gigabytes. torch's
# platform-specific dependencies are not pinned here, because torch pins them.
TORCH ?= 2.13.0
FREEZE = pip freeze --all --exclude vip5-serve | sed -E -e 's/\+[a-z0-9.]+$$//' -e '/^(pip|nvidia-.*|cuda-.*|triton)==/d'

lock: ## update the pinned versions
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --upgrade pip setuptools torch==$(TORCH)
	$(VENV)-lock/bin/python -m pip install --quiet .
	$(VENV)-lock/bin/python -m $(FREEZE) > requirements.lock
	$(VENV)-lock/bin/python -m pip install --quiet .[dev]
	$(VENV)-lock/bin/python -m $(FREEZE) > requirements-dev.lock
	rm -rf $(VENV)-lock build

# Not part of `lint` or `test`, because it queries a database on the network. Run it nightly and before each release.
AUDIT ?= 2.10.1
audit: ## check the pinned versions for known vulnerabilities
	test -x $(VENV)-audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)-audit && $(VENV)-audit/bin/python -m pip install --quiet pip-audit==$(AUDIT); }
	$(VENV)-audit/bin/pip-audit --disable-pip --no-deps --requirement requirements.lock
	$(VENV)-audit/bin/pip-audit --disable-pip --no-deps --requirement requirements-dev.lock
