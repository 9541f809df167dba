# One line per target after `##`: `make` alone prints them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
STANDINS := .venv-emulator
BIN := $(VENV)/bin
CODE := eft tasks api beat_schedules deploy tests

# Pass more to pytest with `make test PYTEST="-k rename"`.
PYTEST ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.installed $(STANDINS)/.installed $(VENV)/.system ## Create .venv and .venv-emulator from the locks; the second run is instant

.PHONY: demo
demo: setup ## Start everything, move a few hundred files between two customers, verify each one, stop
	$(BIN)/eft demo

.PHONY: up
up: setup ## Start everything and keep it until Ctrl-C (REGIONS=2: two regions and a link that can be cut)
	$(BIN)/eft up --regions $(or $(REGIONS),1)

.PHONY: test
test: check ## Run the checks and every test, with branch coverage (threshold: pyproject.toml)
	$(BIN)/pytest --numprocesses=2 --dist=loadgroup -m "not slow" --cov --cov-report=term $(PYTEST)

.PHONY: test-slow
test-slow: setup ## Run the tests that take minutes each: large files, long outages
	$(BIN)/pytest -m slow $(PYTEST)

.PHONY: screenshot
screenshot: setup ## Look at Flower's pages in a real browser (Debian: chromium) and take docs/flower.png
	$(BIN)/python -m tests.browser.flower docs/flower.png

.PHONY: test-fast
test-fast: setup ## Run the unit tests: no sockets, no processes
	$(BIN)/pytest tests/unit $(PYTEST)

.PHONY: check
check: setup ## Check format, lint, types, import contracts and container files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint --config .hadolint.yaml deploy/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/docker-compose --file docker-compose.yml config --quiet

.PHONY: format
format: setup ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# No host, no path and no option of this machine may reach a lock: hence --no-config and the --no-emit options.
LOCK := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links $(UPGRADE)

.PHONY: lock
lock: $(VENV)/.installed ## Compile the locks anew (UPGRADE=--upgrade to take newer releases)
	$(LOCK) --group setup --output-file requirements/setup.txt
	$(LOCK) pyproject.toml --group dev --output-file requirements/dev.txt
	$(LOCK) pyproject.toml --constraints requirements/dev.txt --output-file requirements/run.txt
	$(LOCK) --group emulator --output-file requirements/emulator.txt
	$(LOCK) --group bench --output-file requirements/bench.txt

# The long proofs. Each ends with one line of figures, and with exit status 0 only if nothing was lost or duplicated (docs/proof).
.PHONY: model
model: setup ## Check the protocol in every interleaving, and find every weakened variant unsafe
	$(BIN)/python -m tests.model

.PHONY: simulate
simulate: setup ## Play the real engine in a simulated world, SEEDS=n (2000) times
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),2000)

.PHONY: killpoints
killpoints: setup ## Stop and kill real workers at every pair of points (MINUTES=n ends it early, ONLY=words takes some variants)
	$(BIN)/python -m tests.killpoints $(if $(MINUTES),--minutes $(MINUTES)) $(if $(ONLY),--only '$(ONLY)')

.PHONY: soak
soak: setup ## Move files for MINUTES=n (5) while workers die, stop, and lose their connections
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),5)

.PHONY: drill
drill: setup ## Switch, fail, cut and rejoin two regions under traffic, RUNS=n (20) times (SCENE=name plays one kind, SEED=n the same dice)
	$(BIN)/python -m tests.drill --runs $(or $(RUNS),20) $(if $(SCENE),--scene $(SCENE)) $(if $(SEED),--seed $(SEED))

.PHONY: listing
listing: setup ## Poll a directory of NAMES=n (100000) over a real sshd three times: seconds, memory, requests (OLD=1: all of them match)
	$(BIN)/python -m tests.listing --names $(or $(NAMES),100000) $(if $(OLD),--old)

.PHONY: arrivals
arrivals: setup ## Take EVENTS=n (200000) events through fakes and OBJECTS=n (3000) through EventBridge and SQS, with kills and duplicates
	$(BIN)/python -m tests.arrivals --events $(or $(EVENTS),200000) --objects $(or $(OBJECTS),3000)

# Side by side with what users would pick instead; writes docs/bench (machine, figures, ratios, what is missed).
.PHONY: bench
bench: $(VENV)/.bench ## Measure the whole engine against rclone, lftp, sftp and Airflow's way (ten minutes); writes docs/bench
	$(BIN)/python -m tests.bench usual $(if $(ONLY),--only '$(ONLY)')

.PHONY: bench-quick
bench-quick: $(VENV)/.bench ## Measure the first row against rclone, within 90 seconds; writes .local/bench
	$(BIN)/python -m tests.bench quick --into .local/bench

.PHONY: bench-full
bench-full: $(VENV)/.bench ## Measure each workload in each direction at 0, 20 and 100 ms (hours); ONLY=words takes some rows
	$(BIN)/python -m tests.bench full $(if $(ONLY),--only '$(ONLY)')

.PHONY: bench-scale
bench-scale: $(VENV)/.bench ## Measure 1, 2 and 4 workers against distant servers, and simulate fleets of up to 1,000
	$(BIN)/python -m tests.bench scale

.PHONY: clean
clean: ## Remove the environments, caches and local state
	rm -rf $(VENV) $(STANDINS) .local .coverage .coverage.* build dist .*_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs in a tenth of pip's time; where it cannot reach an index that only pip is configured for, pip does the same.
define install
@echo "Installing $(2) into $(1)"
@$(BIN)/uv pip install --quiet --python $(1)/bin/python --require-hashes --requirement $(2) \
	|| $(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(2)
endef

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Python 3.11 or later is needed; name one with: make PYTHON=/path/to/python3.11'; exit 1; }
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.tooled: requirements/setup.txt | $(VENV)/.created
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

$(VENV)/.packages: requirements/dev.txt $(VENV)/.tooled
	$(call install,$(VENV),$<)
	@touch $@

# The checkout itself, editable, built with what the lock has already installed.
$(VENV)/.installed: pyproject.toml $(VENV)/.packages
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-index --no-build-isolation --editable .
	@touch $@

$(STANDINS)/.installed: requirements/emulator.txt $(VENV)/.tooled
	@test -x $(STANDINS)/bin/python || $(PYTHON) -m venv $(STANDINS)
	$(call install,$(STANDINS),$<)
	@touch $@

# Servers that no Python package carries. Missing ones are named, not insisted on: the stack has stand-ins for them.
$(VENV)/.system: requirements/system.sh | $(VENV)/.created
	@bash $<
	@touch $@

# What the benchmarks compare with. Missing programs are named, and their rows are marked as not measured.
$(VENV)/.bench: requirements/bench.txt requirements/bench.sh | setup
	$(call install,$(VENV),$<)
	@bash requirements/bench.sh
	@touch $@
