# make demo     sets everything up and runs both experiments
# make test     sets everything up and runs the tests
# make site     sets everything up, runs both experiments and writes site/, a website
# make cluster  sets everything up and compares two workers on this machine with one
# make clean    deletes the environments

# PYTHON=python3.13 chooses another Python; each version has its own environment in .venv

PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
BIN := .venv/$(VERSION)/bin

.PHONY: demo test site cluster clean

demo: .venv/$(VERSION)/demo
	$(BIN)/python mnist_dvae.py --overwrite
	$(BIN)/python sound_dvae.py --overwrite
	@echo "Pictures and sounds are in plots/mnist and plots/sound."

test: .venv/$(VERSION)/test
	@$(BIN)/python -c 'import sys; print("Python", sys.version, "in", sys.prefix)'
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

site: .venv/$(VERSION)/demo
	@test ! -e site || grep -qs "Denoising VAE: digits and sounds" site/index.html || \
	  { echo "site: make site did not write this folder; move it elsewhere" >&2; exit 2; }
	mkdir -p site
	cp pages/site.html site/index.html
	cp pages/style.css site/style.css
	$(BIN)/python mnist_dvae.py --out site/mnist --overwrite
	$(BIN)/python sound_dvae.py --out site/sound --overwrite
	rm site/mnist/checkpoint.npz site/sound/checkpoint.npz  # for --resume only
	@echo "Look at it: python3 -m http.server --directory site"

cluster: .venv/$(VERSION)/demo
	$(BIN)/python benchmarks/cluster.py

.venv/$(VERSION)/demo: requirements.txt
	$(PYTHON) -m venv .venv/$(VERSION)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

.venv/$(VERSION)/test: requirements-dev.txt .venv/$(VERSION)/demo
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv
