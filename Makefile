# The whole interface for people. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := $(CURDIR)/.venv
STAMP := $(VENV)/.installed
COLLECTION := collections/ansible_collections/claw/fleet
OWN_UNITS := tests/unit tests/coachlist tests/bench tests/cli
UNITS := $(OWN_UNITS) $(COLLECTION)/tests/unit
export PATH := $(VENV)/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export CLAW_CACHE_DIR ?= $(CURDIR)/.cache

.PHONY: help up ask down clean test check lint types quick unit sanity postgresql integration molecule sandbox machine tunnel tunnel-heals podman tunnel-real acceptance fire soak bench lock own-units

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): requirements.lock
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null \
	  || { echo "Installing Debian's python3-venv ..."; apt-get update -q >/dev/null; apt-get install -y -q python3-venv >/dev/null; }
	@$(PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 or later with its venv module is needed (Debian: apt-get install python3-venv)."; exit 1; }
	@echo "Installing the pinned Python packages into .venv (about a minute, once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

up: $(STAMP) ## Start the demo: a machine, two gateways, Django and three coaches who answer
	@python molecule/bench/demo.py up

ask: $(STAMP) ## Ask the coaches' agents through Django: make ask [COACH=anna] [TEXT="How are you?"]
	@python molecule/bench/demo.py ask $(if $(COACH),--coach "$(COACH)") $(if $(TEXT),--text "$(TEXT)")

down: $(STAMP) ## Stop the demo and remove everything it made
	@python molecule/bench/demo.py down

clean: down ## down, and forget the cached images, OpenClaw's tree and the virtual environment
	rm -rf .cache .venv .mypy_cache .ruff_cache .pytest_cache

check: $(STAMP) ## Before every commit: lint, types and the quick units, under two minutes
	@$(MAKE) --no-print-directory --output-sync=target -j3 lint types quick

quick: $(STAMP)
	@pytest -q -n 2 -m "not slow" $(UNITS)

lint: $(STAMP)
	@ruff check --quiet . && ruff format --check --quiet .
	@yamllint --strict .
	@ansible-lint --offline -q
	@cd $(COLLECTION) && antsibull-changelog lint

types: $(STAMP)
	@mypy --no-error-summary

unit: $(STAMP) ## All units
	@pytest -q -n 2 $(UNITS)

sanity: $(STAMP) ## ansible-test sanity and units, in environments of their own
	@tests/ansible-test sanity
	@tests/ansible-test units

molecule: $(STAMP) ## The Molecule scenario of gateways on two machines, and of their control node
	@molecule test

sandbox: $(STAMP) ## The Molecule scenario of agents with tools, in sandboxes
	@molecule test --scenario-name sandbox

machine: $(STAMP) ## The Molecule scenario of bare machines, on two releases of Debian
	@molecule test --scenario-name machine

tunnel: $(STAMP) ## The Molecule scenario of a tunnel that comes and goes, whole, with a stand-in for Cloudflare
	@CLAW_TUNNEL=whole molecule test --scenario-name tunnel

tunnel-heals: $(STAMP) ## The same in half the time: that it heals, and not all that can be wrong
	@molecule test --scenario-name tunnel

podman: $(STAMP) ## The Molecule scenario with sandboxes of rootless engines
	@if [ -c /dev/fuse ] && [ -c /dev/net/tun ]; then molecule test --scenario-name podman; \
	else echo "The scenario podman is LEFT OUT: this machine has no /dev/fuse or no /dev/net/tun for a rootless engine."; fi

tunnel-real: $(STAMP) ## The Molecule scenario of the tunnel with a real cloudflared: make tunnel-real CLOUDFLARED=FILE
	@test -x "$(CLOUDFLARED)" || { echo "Give a cloudflared that can be executed: make tunnel-real CLOUDFLARED=FILE"; exit 1; }
	@CLAW_TUNNEL=whole CLAW_CLOUDFLARED="$(realpath $(CLOUDFLARED))" molecule test --scenario-name tunnel

postgresql: $(STAMP) ## The coach list on PostgreSQL instead of SQLite
	@tests/with-postgresql pytest -q -n 2 tests/coachlist

integration: $(STAMP) ## The collection against a real gateway and a real Django, without systemd
	@pytest -q tests/integration

acceptance: $(STAMP) ## make up and everything it promises, on a bench of its own; tools in sandboxes have molecule and fire
	@CLAW_DEMO_ENGINE=none pytest -q tests/acceptance -m "not fire"

fire: $(STAMP) ## What takes longest: bad machines, rotation, adoption, a run by itself, images, and the scenarios that test leaves out
	@pytest -q tests/acceptance/test_1_up.py tests/acceptance/test_3_isolation.py
	@pytest -q tests/acceptance -m fire
	@CLAW_TUNNEL_DEBIAN=13 $(MAKE) --no-print-directory -j1 podman tunnel

# Two at a time, the longest first, so that no core waits for the last. They print much after one of them has failed, so what
# failed is said once more at the end. The collection's own units are run by ansible-test, within sanity.
PARTS := acceptance molecule machine sandbox tunnel-heals integration sanity own-units postgresql
test: lint types ## Everything
	@mkdir -p $(CLAW_CACHE_DIR); said=$(CLAW_CACHE_DIR)/test.log; \
	$(MAKE) --no-print-directory --output-sync=line -j2 $(PARTS) 2>&1 | tee $$said || { \
	  echo; echo "What failed, once more (all of it: $$said):"; \
	  grep -aE -A 15 'fatal: |^(FAILED|ERROR) |^E  |\*\*\* ' $$said | tail -n 100; exit 1; }

own-units: $(STAMP)
	@$(MAKE) --no-print-directory unit UNITS="$(OWN_UNITS)"

soak: $(STAMP) ## Every kill and race, and new examples, for hours: make soak [CLAW_SEED=N] [CLAW_SOAK_FROM=NAME:N]
	@CLAW_SOAK=all pytest -q tests/unit tests/coachlist $(COLLECTION)/tests/unit tests/acceptance
	@CLAW_SOAK=all CLAW_TUNNEL=whole molecule test --scenario-name tunnel

bench: $(STAMP) ## What it costs, beside other ways: make bench [BENCH="--only inventory"]
	@PYTHONPATH=src:collections:molecule/bench:. python -m benchmarks.run $(BENCH)

lock: ## Pin the newest versions that pyproject.toml allows into requirements.lock (needs uv)
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --extra dev \
	  --no-emit-index-url --no-annotate --no-header --no-emit-package claw-fleet pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra controller \
	  --constraint requirements.lock --no-emit-index-url --no-annotate --no-header --no-emit-package claw-fleet \
	  pyproject.toml -o $(COLLECTION)/roles/reconciler/files/requirements.lock
