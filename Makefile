# make demo     sets everything up and runs both experiments
# make test     sets everything up and runs the tests
# make cluster  sets everything up and compares two workers on this machine with one

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test cluster clean

demo: .venv/demo
	$(BIN)/python mnist_dvae.py --overwrite
	$(BIN)/python sound_dvae.py --iters 800 --overwrite
	@echo "Pictures and sounds are in plots/mnist and plots/sound."

test: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

cluster: .venv/demo
	$(BIN)/python benchmarks/cluster.py

.venv/demo: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

.venv/test: requirements-dev.txt .venv/demo
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv
