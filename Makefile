# Everything a newcomer types. Each target does its own set-up.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
FOR    ?=

.PHONY: install demo test check format chaos bench lock clean system

install: $(VENV)/.installed

$(VENV)/.installed: requirements/dev.txt pyproject.toml requirements/system.sh tests/node_opcua/package-lock.json
	@sh requirements/system.sh $(PYTHON)
	@sh tests/node_opcua/install.sh
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation -e .
	@touch $@

demo: install  ## a simulated plant, a broker, the agent and a live view; FOR=90s ends by itself
	$(BIN)/edge-agent demo $(if $(FOR),--for $(FOR))

test: install  ## a process for each core and one more, since many tests wait; a file of tests in one of them
	$(BIN)/python -m pytest -n $$(($$(nproc) + 1)) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

chaos: install  ## faults at random upon a real agent, and a scoreboard; FOR=30m
	PYTHONPATH=. $(BIN)/python tests/chaos.py $(if $(FOR),--for $(FOR))

bench: install
	$(BIN)/python -m bench

lock: install  ## pin again what pyproject.toml asks for; no index address is written
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" --upgrade pyproject.toml --extra demo -o requirements/run.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" --upgrade pyproject.toml --extra demo --extra dev -o requirements/dev.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
