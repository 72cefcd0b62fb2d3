# Two commands on a fresh machine that has Python >= 3.11, git and make:
#   make distill    one distilled Fashion-MNIST, tested, in runs/first
#   make test       the whole test suite
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/first

.PHONY: distill test lint table clean

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,tfds,dev]'
	# Without what it asks for: its requirements are TensorFlow's, which it needs for nothing here.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'neural-tangents>=0.6.5'
	touch $@

distill: $(VENV)/installed
	$(BIN)/python -m dd_jax distill frepo --ipc 1 --protocol cpu --workdir $(RUN)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/installed-test
	$(BIN)/ruff check dd_jax experiments tests

table: $(VENV)/installed
	$(BIN)/python -m experiments.table

clean:
	rm -rf $(VENV) build *.egg-info
