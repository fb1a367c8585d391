# `make demo` and `make test` do all the set-up they need; nothing has to be there but Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?= studies/quickstart.toml
# Precision of the studies that tests run: float32 or bfloat16, which a processor without it emulates.
DTYPE ?= float32
export AUTOPEFT_TEST_DTYPE := $(DTYPE)

.PHONY: demo test gpu exhaustive fuzz soak coverage audit docs release-check test-pythons lint format clean

demo: $(VENV)/.demo
	$(BIN)/autopeft run $(STUDY)

test: lint
	$(BIN)/pytest -n 2 --dist worksteal -m "not exhaustive and not fuzz and not soak"

# On a machine with a GPU, and a PyTorch for it. `make test` keeps to the CPU there too.
gpu: $(VENV)/.installed
	$(BIN)/pytest -m gpu

# What `make test` leaves out: most whole studies, every method on every family and kind of task, and all of
# scikit-learn's checks of an estimator.
exhaustive: $(VENV)/.exhaustive
	$(BIN)/pytest -n 2 --dist worksteal -m exhaustive

# Seeded mutations of study files, data files and winners, of which `make test` runs a short slice.
fuzz: $(VENV)/.installed
	$(BIN)/pytest -n 2 --dist worksteal -m fuzz

# Faults on purpose, and no trial or fold lost or doubled: 100 kills of studies, drivers, workers, nodes, the MLflow server
# and databases, full disks, a clock that jumps, and 80 double starts. `benchmarks/soak.py` runs some kills.
soak: $(VENV)/.installed
	$(BIN)/pytest -n 2 --dist worksteal -m soak

# Apart from `make test`: to follow every line takes time of its own.
coverage: $(VENV)/.installed
	$(BIN)/pytest -n 2 --cov --cov-report=term

# What is installed against the public advisories; needs a network, and an environment of its own for the tool.
# audit.txt lists the advisories that concern nothing we use, each with its reason.
audit: $(VENV)/.installed
	test -x $(VENV)-audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)-audit && \
	  $(VENV)-audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10'; }
	$(VENV)-audit/bin/pip-audit --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  --skip-editable $$(sed -n 's/^\([A-Za-z0-9-]*\)  *#.*/--ignore-vuln \1/p' audit.txt)

# The documentation as a site, in site/: open site/index.html. Fails where a link leads nowhere.
docs: $(VENV)/.exhaustive
	$(BIN)/python tools/site_pages.py build/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Before a release: what would be published is built, looked into, installed in an empty environment and used.
release-check: $(VENV)/.exhaustive
	$(BIN)/python tools/release_check.py

# `make test`'s tests on every Python that is found here; at the end it says which were not. Those of pyenv are found too.
PYENV_ROOT ?= $(HOME)/.pyenv
TESTS ?=
test-pythons: $(VENV)/.exhaustive
	$(BIN)/tox run --discover $(BIN)/python $(wildcard $(PYENV_ROOT)/versions/3.*/bin/python) -- $(TESTS)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VENV)-audit outputs dist build site .tox .mypy_cache .ruff_cache .pytest_cache .coverage*

# What the demo needs, the tests, and all the rest; each installs no more than is missing.
INSTALL = test -d $(VENV) || $(PYTHON) -m venv $(VENV); \
  $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

$(VENV)/.demo: pyproject.toml constraints.txt
	$(INSTALL) '.[demo]'
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt
	$(INSTALL) '.[demo,dev]'
	touch $(VENV)/.demo $@

$(VENV)/.exhaustive: pyproject.toml constraints.txt
	$(INSTALL) '.[demo,dev,exhaustive]'
	touch $(VENV)/.demo $(VENV)/.installed $@
