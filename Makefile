# The two commands of a newcomer: `make study` and `make test`. Both need Python 3.11 and make, nothing else.
PYTHON ?= python3.11
# Where torch comes from; none means the package index, whose build of torch is for CUDA.
TORCH_INDEX ?=
BIN := .venv/bin
INSTALLED := .venv/installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export VIRTUAL_ENV := $(CURDIR)/.venv

.PHONY: study test test-slow test-slurm lint format schemas clean

study: $(INSTALLED)
	@snakemake --profile profiles/local --config study=micro
	@echo "report: results/micro/report.html"

test: $(INSTALLED) lint
	python -m pytest --numprocesses 2 --dist loadfile

# on a private SLURM that these tests start on this machine, and stop
test-slurm: $(INSTALLED)
	tests/slurm/install
	python -m pytest tests/slurm -m "slurm and not slow" -rs --numprocesses 3

test-slow: $(INSTALLED)
	python -m pytest -m slow

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	mypy
	lint-imports
	snakemake --lint

format: $(INSTALLED)
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

schemas: $(INSTALLED)
	python -m sft_atlas.commands.export

$(INSTALLED): requirements.txt pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "Python 3.11 is needed: $(PYTHON) was not found; set PYTHON=…"; exit 1; }
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) "$$(grep '^torch==' requirements.txt)")
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

clean:
	rm -rf .venv results logs .snakemake
