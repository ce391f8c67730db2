# make demo: the whole chain on this machine (SIZE=small: in a minute).  make test: the test suite; make proofs: those that take long.
# make docs: the site, into build/site.  All keep their environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SIZE ?= full
OUT := $(if $(filter full,$(SIZE)),runs/demo,runs/demo-$(SIZE))

.PHONY: demo demo-publish test proofs test-trainers docs lint lock clean

demo: $(VENV)/.demo-ready
	$(BIN)/scalelab demo --size $(SIZE) --out $(OUT)

demo-publish: $(VENV)/.demo-ready
	$(BIN)/scalelab demo --out runs/demo --publish results/demo

# three workers, on two cores too: while the tests of one wait, the others go on
PYTEST := $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.test-ready
	$(PYTEST) -m "not proof"

proofs: $(VENV)/.test-ready  ## the tests that take long
	$(PYTEST) -m proof

test-trainers: $(VENV)/trainers/.ready  ## exports in the trainers' own parsers, one trained
	SCALELAB_TRAINERS=1 $(VENV)/trainers/bin/python -m pytest tests/fits/predict/export/test_trainers.py

docs: $(VENV)/.docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir build/site

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.demo-ready: pyproject.toml requirements.lock
	@scripts/install.sh $(PYTHON) $(VENV) .
	@touch $@

$(VENV)/.test-ready: pyproject.toml requirements.lock
	@scripts/install.sh $(PYTHON) $(VENV) '.[test,text]'
	@touch $@ $(VENV)/.demo-ready

$(VENV)/.docs-ready: $(VENV)/.test-ready
	@scripts/install.sh $(PYTHON) $(VENV) '.[test,text,docs]'
	@touch $@

$(VENV)/trainers/.ready: requirements-trainers.txt requirements-maxtext.txt
	$(PYTHON) -m venv $(VENV)/trainers
	$(VENV)/trainers/bin/pip install --quiet -r requirements-trainers.txt
	$(VENV)/trainers/bin/pip install --quiet --no-deps --ignore-requires-python -r requirements-maxtext.txt
	@touch $@

lock:  ## the versions that `make` installs; needs uv
	uv pip compile pyproject.toml --extra test --extra text --extra slurm --extra ray --extra docs --universal --python-version 3.11 --upgrade --no-header --no-annotate -o requirements.lock

clean:
	rm -rf $(VENV) runs
