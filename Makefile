# Every target installs what it needs into .venv first. To use another environment (conda): make test PY=python

PYTHON ?= python3
DEMO   ?= demo-output
SEED   ?= 0
BENCH  ?= bench-output
REPORT ?= gpu-report
MINUTES ?= 10
JOBS   ?= auto
CHROMIUM ?= chromium
ifndef PY
PY  := .venv/bin/python
ENV := .venv/.installed
DEV := .venv/.installed-dev
endif

.PHONY: help install demo test test-slow test-gpu test-newest gpu-report bench check format slides clean

help:
	@echo "make demo       pack the built-in digits, train on them, write grids and measure (4 to 10 minutes on 2 cores)"
	@echo "make test       the quick tests     make test-slow   the others too"
	@echo "make test-gpu   what needs a GPU    make bench       speed and memory against the published formulation"
	@echo "make test-newest  the quick tests on the PyTorch of constraints-newest.txt, in .venv-newest"
	@echo "make gpu-report what this program does on this GPU, in ten minutes: $(REPORT)/report.md (DATA=cifar10.zip: train on that)"
	@echo "make check      ruff and mypy       make format      ruff format"
	@echo "make install    create .venv        make clean       remove .venv, .venv-newest and $(DEMO)"
	@echo "make slides     docs/slides.pdf from docs/slides.html, printed by Chromium (make slides CHROMIUM=google-chrome)"

install: $(ENV)

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/.installed: requirements.txt constraints.txt | .venv/bin/python
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	touch $@

$(DEMO)/digits.zip: | $(ENV)
	$(PY) dataset_tool.py --source=demo --dest=$@

demo: $(ENV) $(DEMO)/digits.zip
	$(PY) train.py --cfg=demo --cond=1 --data=$(DEMO)/digits.zip --outdir=$(DEMO)/seed$(SEED) --seed=$(SEED) --metrics=none \
	    --resume=latest
	@run=$$(ls -d $(DEMO)/seed$(SEED)/[0-9]*-* | tail -n 1); \
	if ! grep -q '"status": "done"' $$run/run_facts.json; then echo "Training has not ended: make demo resumes it."; exit 1; fi; \
	$(PY) calc_metrics.py --network=$$(ls $$run/network-snapshot-[0-9]*.pkl | tail -n 1) --data=$(DEMO)/digits.zip \
	    --metrics=proxy_fd_randconv_v1,proxy_fd_clf_v1 && \
	echo "Generated digits, one class per column: $$(ls $$run/fakes[0-9]*.png | tail -n 1)" && \
	echo "Real digits beside them:              $$run/reals.png"

test: $(DEV)
	$(PY) -m pytest -q -n $(JOBS) --dist worksteal -m "not slow and not gpu"

test-slow: $(DEV)
	$(PY) -m pytest -q -n $(JOBS) --dist worksteal -m "not gpu"

test-gpu: $(DEV)
	$(PY) -m pytest -q -m gpu

.venv-newest/.installed: requirements.txt requirements-dev.txt constraints-newest.txt
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt \
	    -c constraints-newest.txt
	touch $@

test-newest: .venv-newest/.installed
	.venv-newest/bin/python -m pytest -q -n $(JOBS) --dist worksteal -m "not slow and not gpu"

gpu-report: $(DEV)
	$(PY) -m benchmarks.gpu_report --outdir=$(REPORT) --minutes=$(MINUTES) $(if $(DATA),--data="$(DATA)")

bench: $(ENV)
	@mkdir -p $(BENCH)
	@for name in train_step attention ops loader sampling; do \
	    echo "== benchmarks/$$name.py"; $(PY) benchmarks/$$name.py --json=$(BENCH)/$$name.json || exit 1; \
	done

slides: docs/slides.pdf

docs/slides.pdf: docs/slides.html docs/*.png docs/*.webp docs/*.svg
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --no-pdf-header-footer --print-to-pdf=$@ "file://$(CURDIR)/docs/slides.html"

check: $(DEV)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(DEV)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf .venv .venv-newest $(DEMO)
