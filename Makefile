# make repro: from nothing to benchmark scores.   make test: the tests.   Both install what they need into .venv first.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && echo $$p && break; done)
INSTALLED := .venv/installed
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH" DVC_NO_ANALYTICS=1
TESTS := $(RUN) python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# make real DATA=folder: what sound teaches on real clips (experiments/real.py says what the folder holds).
DATA ?= $(EARSHOT_REAL_DATA)

.PHONY: repro real test test-long lint docs install pin clean

repro:
	@echo "make repro: runs only what has changed. All of it renders 800 clips, trains two networks and their controls, runs nine benchmarks" \
		"and six exhibits and writes report/: seven to fourteen minutes on two cores"
	@$(MAKE) --silent install
	@$(RUN) dvc repro
	@$(RUN) earshot scores

real:
	@test -n "$(DATA)" || { echo "make real: needs DATA=folder with real/clips, voc2007_256 and esc10"; exit 1; }
	@$(MAKE) --silent install
	@$(RUN) python -m experiments.real "$(DATA)"

test: $(INSTALLED) lint
	@$(TESTS)

test-long: $(INSTALLED) lint
	@$(TESTS) -m 'not gpu'

lint: $(INSTALLED)
	@$(RUN) ruff check .
	@$(RUN) lint-imports --no-logo
	@$(RUN) mypy earshot stages

docs: $(INSTALLED)
	@$(RUN) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@echo ".earshot/site/index.html: the documentation"

install: $(INSTALLED)

$(INSTALLED): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11 to 3.14 on PATH, or PYTHON=/path/to/it"; exit 1; }
	@git cat-file -e HEAD:./params.yaml 2>/dev/null || { echo "make: DVC and earshot recipe need Git, and no commit that Git can read" \
		"holds this folder; install Git and clone the repository, or run: git init && git add --all && git commit --message start"; exit 1; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "make: installs requirements.txt into .venv first, 7.2 GB, about three minutes, once"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Rewrite the pinned set from pyproject.toml, with the newest versions that it allows.
pin:
	@uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-annotate --no-header --output-file requirements.txt --upgrade pyproject.toml

clean:
	rm -rf .earshot
