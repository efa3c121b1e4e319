# Two commands: `make demo` and `make test`. Both make the environment .venv and install into it.
# `make gpu` is for a machine with a GPU and a Python that has torch and pycuda: it installs nothing but
# what WHEELS=DIR has.
# PYTHON chooses the interpreter (3.10 to 3.12); DATA=DIR plays the demonstration on your own images.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check gpu clean

demo: $(VENV)/.demo
	$(BIN)/python -m examples.demo $(if $(DATA),--data "$(DATA)")

test: $(VENV)/.dev
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu:
	$(PYTHON) -m benchmarks.gpu $(if $(WHEELS),--wheels "$(WHEELS)")

clean:
	rm -rf $(VENV) out

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12) and f"expected Python 3.10 to 3.12, got {sys.version.split()[0]}; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone: it is by far the largest, and later steps must find it satisfied.
$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install torch==2.13.0
	$(BIN)/python -m pip install --editable '.[edge,train,calibrate,demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install --editable '.[edge,train,calibrate,demo,dev]'
	touch $@
