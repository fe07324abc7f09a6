# A pool on this machine:   make pool [HOSTS=3] [SIMULATE=0] [BACKEND=qemu|simulator] [AUTH=file|pam] [POOL_DIR=.pool] [AMQP_URL=amqp://...]
# Everything that is missing is installed first; see docs/pools.md.

PYTHON ?= python3
POOL_DIR ?= .pool
VENV_PYTHON := .venv/bin/python
POOL := $(VENV_PYTHON) -m pool --dir $(POOL_DIR)
PARALLEL ?= -n 2 --dist loadfile --no-loadscope-reorder
CHECKED := shared services pool bench tests

.PHONY: pool pool-down pool-clean pool-status test lint format bench docs test-compose help
.DEFAULT_GOAL := help

help:
	@echo "make pool           start a pool of three hosts (HOSTS=5 SIMULATE=64 BACKEND=simulator)"
	@echo "make pool-status    show its processes"
	@echo "make pool-down      stop it; its data is kept"
	@echo "make pool-clean     stop it and remove its data"
	@echo "make test           run all tests"
	@echo "make lint           ruff and mypy"
	@echo "make bench          measure"
	@echo "make docs           write docs/coverage.md and the API reference, docs/api/index.html"
	@echo "make test-compose   prove docker-compose.yml (root; installs Docker's engine)"

pool:
	@PYTHON=$(PYTHON) pool/install.sh --for pool
	@$(POOL) up $(if $(HOSTS),--hosts $(HOSTS)) $(if $(SIMULATE),--simulate $(SIMULATE)) $(if $(BACKEND),--backend $(BACKEND)) $(if $(AUTH),--auth $(AUTH)) $(POOL_OPTIONS)

pool-down pool-clean pool-status:
	@test -x $(VENV_PYTHON) || { echo "nothing is installed in this folder, so no pool runs from it"; exit 1; }
	@$(POOL) $(@:pool-%=%)

test:
	@PYTHON=$(PYTHON) pool/install.sh --for test
	@$(VENV_PYTHON) -m pytest $(PARALLEL) $(PYTEST_OPTIONS)

lint:
	@PYTHON=$(PYTHON) pool/install.sh --for lint
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy --strict $(CHECKED)

format:
	@PYTHON=$(PYTHON) pool/install.sh --for lint
	@$(VENV_PYTHON) -m ruff format .
	@$(VENV_PYTHON) -m ruff check --fix .

bench:
	@PYTHON=$(PYTHON) pool/install.sh --for bench
	@$(VENV_PYTHON) -m bench $(BENCH_OPTIONS)

docs:
	@PYTHON=$(PYTHON) pool/install.sh --for test
	@$(VENV_PYTHON) -m tests.conformance.coverage
	@$(VENV_PYTHON) -m services.api.reference docs/api

test-compose:
	@PYTHON=$(PYTHON) pool/install.sh --for compose
	@$(VENV_PYTHON) -m pytest -m compose tests/compose $(PYTEST_OPTIONS)
