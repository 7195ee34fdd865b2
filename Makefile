# Tapeline: `make help` says what there is. Plain sh and make 3.81; no path below may be absolute,
# because make splits names at spaces and the folder this lies in may have one.

SHELL = /bin/sh
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help install demo chaos test foreign bench check wheel clean
.DELETE_ON_ERROR:

# The interpreter to build .venv with. Empty: the newest of these that runs and can make environments.
PYTHON =
CANDIDATES = python3.13 python3.12 python3.11 python3 python
# What is handed on to the demo or to pytest: make demo ARGS="--for 60s --json"
ARGS =

READY = .venv/.ready
BENCH = .venv/.bench

help:
	@echo 'make demo [ARGS="--for 60s --json"]  simulated market, whole pipeline, proof that nothing was lost'
	@echo 'make chaos [ARGS="--minutes 10 --seed 7 --json"]  the whole product harmed at random, and the same proof'
	@echo 'make install [PYTHON=python3.12]     environment in .venv/, from constraints.txt'
	@echo 'make test [ARGS="-k candle"]         every test, on real servers'
	@echo 'make foreign [ARGS="-k okx"]         other people'"'"'s clients against the simulator (installs ccxt)'
	@echo 'make bench [ARGS="--json --only chain"]  how fast it is, beside Redis, Postgres and cryptofeed alone'
	@echo 'make check                           ruff format and lint, mypy --strict'
	@echo 'make wheel                           dist/tapeline-*.whl'
	@echo 'make clean                           removes .venv/, caches and builds; never data or settings'

install: $(READY)

# The environment knows the folder it was made in: one that was moved is made anew.
$(READY): pyproject.toml constraints.txt $(shell [ "`cat .venv/.ready 2>/dev/null`" = "`pwd -P`" ] || echo .moved)
	@base='import sys, venv, ensurepip; sys.version_info < (3, 11) and sys.exit(1); print(sys._base_executable)'; \
	python= ; \
	for candidate in "$(PYTHON)" $(CANDIDATES); do \
	    [ -n "$$candidate" ] || continue; \
	    python=`"$$candidate" -c "$$base" 2>/dev/null` && break; \
	    python= ; \
	    if [ -n "$(PYTHON)" ]; then \
	        echo 'PYTHON="$(PYTHON)" is not a Python 3.11 or newer with venv and ensurepip' >&2; \
	        exit 2; \
	    fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo 'Tapeline needs Python 3.11, 3.12 or 3.13 with venv and ensurepip, and found none on PATH. Install one:' >&2; \
	    echo '  Debian, Ubuntu:  sudo apt-get install python3 python3-venv   (or python3.12 python3.12-venv)' >&2; \
	    echo '  Fedora:          sudo dnf install python3.13' >&2; \
	    echo '  macOS:           brew install python@3.13' >&2; \
	    echo 'or name one that lies elsewhere:  make install PYTHON=/path/to/python3.13' >&2; \
	    exit 2; \
	fi; \
	echo "make: installing into .venv from $$python (`"$$python" -V`); half a minute" >&2; \
	rm -rf .venv && "$$python" -m venv .venv
	@.venv/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt hatchling >&2
	@.venv/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt \
	    --no-build-isolation --editable '.[embedded,dev]' >&2
	@pwd -P > $(READY)

.moved:

demo: install
	@.venv/bin/pipeline demo $(ARGS)

chaos: install
	@.venv/bin/pipeline chaos $(ARGS)

# Most tests wait for servers: four at a time keep two cores busy. A module's tests stay together and share fixtures.
test: install
	@.venv/bin/python -m pytest -n 4 --dist loadscope $(ARGS)

foreign: install
	@.venv/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt \
	    --no-build-isolation --editable '.[embedded,dev,foreign]' >&2
	@.venv/bin/python -m pytest -o addopts="-p no:valkey -q" tests/foreign $(ARGS)

# cryptofeed, a yardstick, needs Python 3.13: on older ones its figures are missing.
bench: install $(BENCH)
	@.venv/bin/python -m bench $(ARGS)

$(BENCH): $(READY)
	@.venv/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt \
	    --no-build-isolation --editable '.[embedded,bench]' >&2
	@touch $(BENCH)

check: install
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy --strict

wheel: install
	@rm -rf dist
	@.venv/bin/python -m pip wheel --disable-pip-version-check --quiet --no-deps --no-build-isolation -w dist . >&2
	@ls dist

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
