# Every target does all its own set-up and is a no-op when nothing changed. `make help` lists them.
# A stamp lies inside the folder it vouches for, and goes with it.
PYTHON ?= python3
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
TEST_VENV := .venv-test
OLD_SDK_VENV := .venv-anthropic-0
LIVE_VENV := .venv-live
LITELLM_VENV := .venv-litellm
DOCS_VENV := .venv-docs
FUZZ_VENV := .venv-fuzz
FUZZ_SECONDS ?= 3600
TYPESCRIPT := tests/integration/ts
LOCK_VENV := .venv-lock
PIP_FLAGS := --disable-pip-version-check --quiet --require-hashes

.PHONY: help up setup test check lint types architecture bench live patience fuzz docs lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | column -t -s "$$(printf '\t')"

up: setup ## start the gateway with the embedded engine (what `qiao up` does)
	@$(VENV)/bin/qiao up

setup: $(VENV)/.stamp ## create .venv with the package, so that .venv/bin/qiao exists

$(VENV)/.stamp: requirements/run.txt requirements/build.txt pyproject.toml src/qiao/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"qiao needs Python 3.11 or newer; this is {sys.version.split()[0]} (make PYTHON=python3.12 …)")'
	@echo "setup: installing into $(VENV)" >&2
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install $(PIP_FLAGS) -r requirements/run.txt -r requirements/build.txt
	@$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(TEST_VENV)/.stamp: requirements/run.txt requirements/build.txt requirements/test.txt requirements/chat-templates.txt pyproject.toml src/qiao/__init__.py
	@echo "setup: installing into $(TEST_VENV)" >&2
	@test -x $(TEST_VENV)/bin/python || $(PYTHON) -m venv $(TEST_VENV)
	@$(TEST_VENV)/bin/python -m pip install $(PIP_FLAGS) -r requirements/run.txt -r requirements/build.txt -r requirements/test.txt
	@$(TEST_VENV)/bin/python -m pip install $(PIP_FLAGS) --no-deps -r requirements/chat-templates.txt
	@$(TEST_VENV)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# An older SDK of Anthropic, beside the newest one in $(TEST_VENV).
$(OLD_SDK_VENV)/.stamp: requirements/anthropic-0.txt
	@echo "setup: installing into $(OLD_SDK_VENV)" >&2
	@test -x $(OLD_SDK_VENV)/bin/python || $(PYTHON) -m venv $(OLD_SDK_VENV)
	@$(OLD_SDK_VENV)/bin/python -m pip install $(PIP_FLAGS) -r requirements/anthropic-0.txt
	@touch $@

# No stamp where npm is missing: the next run tries again.
$(TYPESCRIPT)/node_modules/.stamp: $(TYPESCRIPT)/package-lock.json
	@if command -v npm >/dev/null; then \
	  echo "setup: installing into $(TYPESCRIPT)/node_modules" >&2; \
	  npm ci --prefix $(TYPESCRIPT) --ignore-scripts --no-audit --no-fund --loglevel=error --fetch-retries=5 && touch $@; \
	else \
	  echo "setup: npm is not installed, the TypeScript SDK will not be tested" >&2; \
	fi

test: $(TEST_VENV)/.stamp $(OLD_SDK_VENV)/.stamp $(TYPESCRIPT)/node_modules/.stamp check docs ## all tests that need no GPU (real SDKs, real Claude Code, embedded engine)
	@$(TEST_VENV)/bin/python -m pytest -m "not live"

check: lint types architecture ## lint, types, architecture

lint: $(TEST_VENV)/.stamp
	@$(TEST_VENV)/bin/ruff check src tests bench
	@$(TEST_VENV)/bin/ruff format --check src tests bench

types: $(TEST_VENV)/.stamp
	@$(TEST_VENV)/bin/mypy

architecture: $(TEST_VENV)/.stamp
	@$(TEST_VENV)/bin/python -m pytest -q tests/test_architecture.py

live: $(TEST_VENV)/.stamp $(LIVE_VENV)/.stamp $(LITELLM_VENV)/.stamp ## the live suites (a real vLLM on this CPU, real clients; minutes)
	@$(TEST_VENV)/bin/python -m pytest -m live

# No stamp where vLLM cannot be had: the reason was printed, the tests are skipped with it, and the next run tries again.
$(LIVE_VENV)/.stamp: requirements/live.txt requirements/live-torch.txt requirements/live-older.txt requirements/live-ray.txt tests/live/vllm/install.py tests/live/vllm/engine/make_model.py tests/live/vllm/engine/template.jinja
	@$(PYTHON) tests/live/vllm/install.py $(LIVE_VENV)
	@test -e $(LIVE_VENV)/ABSENT || touch $@

# The gateway of the usual guides. Where it cannot be had, the reason is printed and its tests are skipped with it.
$(LITELLM_VENV)/.stamp: requirements/litellm.txt
	@echo "setup: installing LiteLLM into $(LITELLM_VENV)" >&2
	@test -x $(LITELLM_VENV)/bin/python || $(PYTHON) -m venv $(LITELLM_VENV)
	@rm -f $(LITELLM_VENV)/ABSENT; \
	if $(LITELLM_VENV)/bin/python -m pip install $(PIP_FLAGS) --no-deps -r requirements/litellm.txt; then touch $@; else \
	  echo "LiteLLM could not be installed here (see what pip said)" > $(LITELLM_VENV)/ABSENT; \
	  echo "setup: tests with LiteLLM WILL BE SKIPPED: pip could not install requirements/litellm.txt" >&2; \
	fi

patience: $(TEST_VENV)/.stamp ## the real Claude Code before an engine that is silent for 20 minutes (21 minutes of waiting)
	@$(TEST_VENV)/bin/python -m pytest -m patience -s -q tests/integration

fuzz: $(FUZZ_VENV)/.stamp ## search for texts that break a law (FUZZ_SECONDS, one core); Linux x86-64, Python 3.11 to 3.13
	@PYTHONPATH=src nice -n 19 $(FUZZ_VENV)/bin/python -m tests.fuzz.search --seconds $(FUZZ_SECONDS)

$(FUZZ_VENV)/.stamp: requirements/fuzz.txt
	@echo "setup: installing into $(FUZZ_VENV)" >&2
	@test -x $(FUZZ_VENV)/bin/python || $(PYTHON) -m venv $(FUZZ_VENV)
	@$(FUZZ_VENV)/bin/python -m pip install $(PIP_FLAGS) -r requirements/fuzz.txt
	@touch $@

bench: $(TEST_VENV)/.stamp ## measure the gateway and the embedded engine beside the bare upstream
	@$(TEST_VENV)/bin/python -m bench all --markdown docs/performance.md

$(DOCS_VENV)/.stamp: requirements/docs.txt
	@echo "setup: installing into $(DOCS_VENV)" >&2
	@test -x $(DOCS_VENV)/bin/python || $(PYTHON) -m venv $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip install $(PIP_FLAGS) -r requirements/docs.txt
	@touch $@

docs: $(DOCS_VENV)/.stamp ## build the guides into site/ (English and 中文)
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --quiet --strict --site-dir site

lock: $(LOCK_VENV)/.stamp ## renew the hashed requirement files (no URL, no host in them)
	@for name in run test build anthropic-0 docs fuzz litellm chat-templates; do \
	  source=$$([ $$name = run ] && echo pyproject.toml || echo requirements/$$name.in); \
	  case $$name in \
	    test|fuzz) extra="--constraint requirements/run.txt";; \
	    litellm) extra="--override requirements/litellm-without.txt";; \
	    chat-templates) extra="--no-deps";; \
	    *) extra="";; \
	  esac; \
	  $(LOCK_VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-annotate --no-emit-index-url --no-emit-find-links --upgrade $$extra $$source -o requirements/$$name.txt || exit 1; \
	done
	@$(LOCK_VENV)/bin/uv pip compile --quiet --python-platform x86_64-manylinux_2_28 --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --upgrade \
	  --override requirements/live-without.txt requirements/live.in -o requirements/live.txt
	@$(PYTHON) tests/live/vllm/lock_ray.py $(LOCK_VENV)/bin/uv

$(LOCK_VENV)/.stamp:
	@$(PYTHON) -m venv $(LOCK_VENV) && $(LOCK_VENV)/bin/python -m pip install --disable-pip-version-check --quiet uv==0.13.9
	@touch $@

clean: ## remove what make created
	@rm -rf $(VENV) $(TEST_VENV) $(OLD_SDK_VENV) $(LIVE_VENV) .venv-ray .vllm-* $(LITELLM_VENV) $(DOCS_VENV) site $(FUZZ_VENV) $(TYPESCRIPT)/node_modules $(LOCK_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
