# Everything runs in .venv, made on first use and made anew when pyproject.toml changes.
# Plain POSIX sh and GNU make 3.81 (macOS) are enough. On Windows, .github/workflows/tests.yml shows the commands.

.PHONY: help quickstart test test-minimal test-parity test-gpu soak bench lint clean

help:
	@echo "make quickstart [DATA=path]   install into .venv, train a small model, show what it learned"
	@echo "make test                     all tests that need neither a GPU nor another project"
	@echo "make test-minimal             numpy alone for autograd; the base install alone for the library"
	@echo "make test-parity              compare with other projects and with reference files"
	@echo "make test-gpu [PYTHON=...]    the GPU tests, with the Python given (nothing is installed)"
	@echo "make soak [SOAK=options]      what takes long: hundreds of killed training runs; SOAK=--help, RANK_SOAK=--help list options"
	@echo "make bench [BENCH=options]    speed and memory against PyTorch; BENCH=--help lists the options"
	@echo "make lint                     ruff check, ruff format --check"
	@echo "make clean                    remove .venv and everything else that was made here"

# The recipes read DATA from the environment, where a path with spaces or quotes needs no quoting.
export DATA

quickstart: .venv/.for-quickstart
	@if [ -n "$$DATA" ]; then .venv/bin/tinyllm quickstart --data "$$DATA"; else .venv/bin/tinyllm quickstart; fi

test: .venv/.for-test
	.venv/bin/python tests/side_by_side.py test

test-parity: .venv/.for-parity
	.venv/bin/python tests/side_by_side.py parity -rs

lint: .venv/.for-lint
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .

# A GPU machine may have no network: the Python that has CuPy and pytest is used as it is.
PYTHON = $(shell if [ -x .venv/bin/python ]; then echo .venv/bin/python; else echo python3; fi)

test-gpu:
	$(PYTHON) -m pytest -rs tests/gpu -m gpu

# Minutes. The results are recorded in docs/checkpoints.md and docs/communicators.md.
SOAK =
RANK_SOAK =

soak: .venv/.for-test
	.venv/bin/python tests/soak/kills.py $(SOAK)
	.venv/bin/python tests/soak/rank_kills.py $(RANK_SOAK)

# A quarter of an hour on two quiet cores; nothing else should run meanwhile.
BENCH =

bench: .venv/.for-parity
	.venv/bin/python tests/benchmarks/bench.py --json runs/bench.json --markdown $(BENCH)

# Each proof has an environment of its own, and runs outside the checkout so that nothing else can be imported.
test-minimal: .venvs/numpy/.ready .venvs/base/.ready
	@rm -rf .venvs/numpy/alone && mkdir .venvs/numpy/alone && cp -R autograd .venvs/numpy/alone/autograd
	cd .venvs/numpy && PYTHONPATH=alone bin/python ../../tests/minimal/autograd_with_numpy_alone.py
	@rm -rf build
	@.venvs/base/bin/python -m pip install --quiet --force-reinstall --no-deps . || { $(pip_failed); }
	@rm -rf build
	cd .venvs/base && bin/python ../../tests/minimal/library_with_base_install.py

clean:
	rm -rf .venv .venvs build dist *.egg-info .pytest_cache .hypothesis .ruff_cache
	find autograd tinyllm tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

# --- Environments -----------------------------------------------------------------------------------------------------

.venv/.for-quickstart: PACKAGES = --editable '.[cli,plot]'
.venv/.for-test: PACKAGES = --editable '.[cli,plot,test,bf16,mpi]' mpich
.venv/.for-parity: PACKAGES = --editable '.[cli,plot,test,bf16,mpi,parity]' mpich
.venv/.for-lint: PACKAGES = --editable '.[dev]'
.venvs/numpy/.ready: PACKAGES = numpy
.venvs/base/.ready: PACKAGES = .

.venv/.for-quickstart .venv/.for-test .venv/.for-parity .venv/.for-lint .venvs/numpy/.ready .venvs/base/.ready: pyproject.toml
	@set -e; environment=$(@D); $(find_python); \
	case $$environment in .venvs/*) rm -rf $$environment;; esac; \
	$(make_environment); \
	echo "Installing into $$environment (once; this takes a minute or two)"; \
	"$$environment/bin/python" -m pip install --quiet --disable-pip-version-check $(PACKAGES) || { $(pip_failed); }; \
	touch $@

# Sets `python` to the first interpreter that runs and is new enough: a name on the PATH may be a broken stub.
find_python = \
	for python in python3.14 python3.13 python3.12 python3.11 python3 python none; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	done; \
	if [ "$$python" = none ]; then \
	    echo "tinyllm needs Python 3.11 or newer, and there is none here: `python3 --version 2>/dev/null || echo 'no python3 at all'`" >&2; \
	    exit 1; \
	fi

# Keeps an environment that works; an old Python, a moved checkout or a half-made one is replaced.
make_environment = \
	if ! "$$environment/bin/python" -m pip --version >/dev/null 2>&1 || \
	   ! "$$environment/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    "$$python" -m venv --clear "$$environment" || { \
	        rm -rf "$$environment"; \
	        echo "Python could not make a virtual environment (see above); on Debian or Ubuntu install the package python3-venv" >&2; \
	        exit 1; \
	    }; \
	fi

pip_failed = \
	echo "pip could not install the packages (see above): is there a network, or an index that pip can reach? Then run make again" >&2; \
	exit 1
