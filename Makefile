# make demo        build a library from catalogs/demo and ask it for versions
# make test        the product's tests: no torch, no compiler, no system packages
# make test-train  the workshop's tests: torch, and the system voices that .ci/run installs
# make lint        ruff and mypy
# make clean       remove what the other targets made

PYTHON ?= python3
PIP_FLAGS ?=
DEMO_LIBRARY ?= demo-library

BIN := .venv/bin
READY := .venv/.ready
TRAIN_READY := .venv-train/.ready
PIP_INSTALL = -m pip install --quiet $(PIP_FLAGS) -c constraints.txt

.PHONY: demo test test-train lint clean

# Three songs far apart in the list are of three different works.
demo: $(READY)
	$(BIN)/livi-index build catalogs/demo --library $(DEMO_LIBRARY)
	@find catalogs/demo -name '*.opus' -o -name '*.ogg' -o -name '*.mp3' -o -name '*.m4a' \
	    | LC_ALL=C sort | sed -n '1p;14p;27p' | while IFS= read -r song; do \
	    printf '\n$$ livi-index query %s -k 3\n' "$$song"; \
	    $(BIN)/livi-index query "$$song" --library $(DEMO_LIBRARY) -k 3 || exit 1; \
	done

test: $(READY)
	$(BIN)/python -m pytest --ignore=tests/train

test-train: $(TRAIN_READY)
	.venv-train/bin/python -m pytest tests/train

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-train $(DEMO_LIBRARY) build dist livi_index.egg-info \
	    .pytest_cache .ruff_cache .mypy_cache

# A venv of its own for torch, so that `make test` shows that the product runs without it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) -e '.[cpu,dev]'
	touch $@

$(TRAIN_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-train
	.venv-train/bin/python $(PIP_INSTALL) -e '.[cpu,dev,train]'
	touch $@
