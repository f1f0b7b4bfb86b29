# ctlab: `make demo` to see it work, `make test` to prove it.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
PRESET ?= tiny
export PYTHONWARNINGS = ignore
export PIP_DISABLE_PIP_VERSION_CHECK = 1
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export UV_NO_CACHE = 1
export PIP_NO_CACHE_DIR = 1
endif

.PHONY: demo test lab app site bench mutants stability clean install lock licences audit readme packages

install: $(VENV)/.installed

# uv downloads in parallel; where it cannot work, pip does the same more slowly. Compiled once here, a notebook starts in half the time wherever Python may not write bytecode
$(VENV)/.installed: requirements.lock setup.py settings.ini
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing into $(VENV) (about 8 GB)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q "$$(grep -o "^uv==[0-9.]*" requirements.lock)"
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(BIN)/uv pip install -q --compile-bytecode -r requirements.lock || $(BIN)/python -m pip install -q -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' > $(VENV)/share/jupyter/lab/settings/overrides.json  # JupyterLab asks nothing outside, and nobody about it
	@touch $@

demo: install
	@$(BIN)/ctlab demo --preset $(PRESET)

test: install
	@bash tests/ci.sh

lab: install
	$(BIN)/jupyter lab nbs

app: install
	@$(BIN)/ctlab app

site: install
	@$(BIN)/ctlab site

readme: install
	@$(BIN)/ctlab site --readme

packages: install
	@$(BIN)/python -c "from pathlib import Path; from ctlab.reporting.site import draw_package_diagram; Path('reports/reference/packages.svg').write_text(draw_package_diagram(Path('.')))"

BENCHMARKS := loading prepare clean decoders synthesis postprocessing steps training network_cache network queries organ_model remote viewer strokes judge  # those of minutes

bench: install  # ends with one table of every clock beside the best peer's
	@rm -f work/clocks.jsonl
	@for name in $(BENCHMARKS); do echo "== benchmarks/$$name.py"; CTLAB_CLOCKS="$(CURDIR)/work/clocks.jsonl" $(BIN)/python benchmarks/$$name.py || exit 1; done
	@$(BIN)/python benchmarks/clocks.py

mutants: install  # would the tests notice? make mutants MODULE=judge.metrics; all when left out
	@$(BIN)/python tests/mutants.py $(MODULE) --show

stability: install  # the test stage RUNS times in random order, beside three busy processes
	@$(BIN)/python tests/stability.py --runs $(or $(RUNS),1)

lock:
	@grep -v '^#' requirements.lock > requirements.lock.new  # what is pinned stays pinned
	$(BIN)/uv pip compile -q requirements.in --python-version 3.11 --no-annotate --no-header --generate-hashes -o requirements.lock.new
	@{ echo "# The exact environment, for Python 3.11. Written by \`make lock\` from requirements.in; do not edit."; cat requirements.lock.new; } > requirements.lock
	@rm requirements.lock.new

licences: install
	@$(BIN)/python benchmarks/licences.py > reports/reference/licences.md

audit: install  # known weaknesses of what is pinned; fails where the advisories cannot be reached
	@$(BIN)/uvx pip-audit --strict --no-deps --disable-pip -r requirements.lock

clean:
	rm -rf work data/phantom reports/runs reports/site reports/test
