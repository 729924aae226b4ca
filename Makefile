# make repro: from nothing to benchmark scores.   make test: the tests.   Both install what they need into .venv first.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
INSTALLED := .venv/installed
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH" DVC_NO_ANALYTICS=1
TESTS := $(RUN) python -m pytest -n auto --dist loadfile

.PHONY: repro test test-long lint install clean

repro: $(INSTALLED)
	@$(RUN) dvc repro
	@$(RUN) python -m earshot.commands.scores

test: $(INSTALLED) lint
	@$(TESTS)

test-long: $(INSTALLED) lint
	@$(TESTS) -m 'not gpu'

lint: $(INSTALLED)
	@$(RUN) ruff check .
	@$(RUN) lint-imports --no-logo
	@$(RUN) mypy earshot stages

install: $(INSTALLED)

$(INSTALLED): requirements.txt
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11 or 3.12 on PATH, or PYTHON=/path/to/it"; exit 1; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "installing requirements.txt into .venv (a few minutes, once)"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

clean:
	rm -rf .earshot
