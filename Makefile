# `make` and python3 (3.11 or newer) are all that these need; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BUNDLE := demo/bundle

.DEFAULT_GOAL := help
.PHONY: help install run demo test servers lint format bench lock audit

help: ## show what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## create .venv from the pinned versions

$(INSTALLED): requirements.lock requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vip5-serve needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

run: $(INSTALLED) ## serve the demonstration on http://127.0.0.1:8000
	$(BIN)/vip5 serve --bundle $(BUNDLE)

demo: $(INSTALLED) ## draw, simulate and train the demonstration anew, in half an hour or more
	rm -rf $(BUNDLE) $(BUNDLE)-text $(BUNDLE)-clip $(BUNDLE)-pictures $(BUNDLE)-held-out $(BUNDLE)-work $(BUNDLE)-requests.jsonl
	$(BIN)/python -m demo.make --out $(BUNDLE)

test: $(INSTALLED) servers ## run all tests
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# The tests of the feature store and of the metrics talk to real servers; without them they are skipped.
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo -n)
servers: ## install redis-server and prometheus from the system's packages if they are missing
	@{ command -v redis-server && command -v redis-sentinel; } >/dev/null \
		|| { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server redis-sentinel >/dev/null; } \
		|| echo "redis-server is missing and cannot be installed here; what needs it will be skipped" >&2
	@{ command -v prometheus && command -v promtool; } >/dev/null \
		|| { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null; } \
		|| echo "prometheus is missing and cannot be installed here; what needs it will be skipped" >&2

lint: $(INSTALLED) ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## lay the code out
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## measure the engines against transformers' generate
	$(BIN)/python -m benchmarks.cpu_engine

# Takes the newest versions that pyproject.toml admits, but for torch, whose newer builds bring gigabytes along. What torch
# needs on one platform alone is left to torch's own pins.
TORCH ?= 2.13.0
FREEZE = pip freeze --all --exclude vip5-serve | sed -E -e 's/\+[a-z0-9.]+$$//' -e '/^(pip|nvidia-.*|cuda-.*|triton)==/d'

lock: ## renew the pinned versions
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --upgrade pip setuptools torch==$(TORCH)
	$(VENV)-lock/bin/python -m pip install --quiet .
	$(VENV)-lock/bin/python -m $(FREEZE) > requirements.lock
	$(VENV)-lock/bin/python -m pip install --quiet .[dev]
	$(VENV)-lock/bin/python -m $(FREEZE) > requirements-dev.lock
	rm -rf $(VENV)-lock build

# Not part of `lint` or `test`, because it asks a database on the network; run it before a release, and every night.
AUDIT ?= 2.10.1
audit: ## ask the database of known vulnerabilities about the pinned versions
	test -x $(VENV)-audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)-audit && $(VENV)-audit/bin/python -m pip install --quiet pip-audit==$(AUDIT); }
	$(VENV)-audit/bin/pip-audit --disable-pip --no-deps --requirement requirements.lock
	$(VENV)-audit/bin/pip-audit --disable-pip --no-deps --requirement requirements-dev.lock
