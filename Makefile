# make demo: the whole chain on this machine.  make test: the test suite.  Both keep their environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-publish test lint lock clean

demo: $(VENV)/.demo-ready
	$(BIN)/scalelab demo --out runs/demo

demo-publish: $(VENV)/.demo-ready
	$(BIN)/scalelab demo --out runs/demo --publish results/demo

test: $(VENV)/.test-ready
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

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

lock:  ## the versions that `make` installs; needs uv
	uv pip compile pyproject.toml --extra test --extra text --extra slurm --extra ray --universal --python-version 3.11 --upgrade --no-header --no-annotate -o requirements.lock

clean:
	rm -rf $(VENV) runs
