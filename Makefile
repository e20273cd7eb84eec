# make demo    the whole job on generated videos (makes .venv when it is missing)
# make test    the tests (likewise); make test-slow: kills, load, seeds; make lint: ruff and mypy
# PYTHON=/path/to/python3 chooses the interpreter: Python 3.11, 3.12 or 3.13.

VENV := .venv
BIN := $(VENV)/bin
# Whole files of tests go to each process, because what a file's tests share is made once; the longest files first. One
# process more than the two cores of a small machine, because some tests wait.
TEST_PROCESSES ?= 3
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: venv demo test test-slow lint clean

venv: $(VENV)/.installed

# The first of these that is new enough, not too new, and can make environments (Debian's python3 alone cannot).
FIND_PYTHON = for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	if $$python -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	then echo $$python; break; fi; done

$(VENV)/.installed: setup.py
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
		echo "make: Python 3.11, 3.12 or 3.13 with venv is needed; name it with PYTHON=/path/to/python3" >&2; exit 1; fi; \
	echo "Installing into $(VENV) with $$($$python --version)"; \
	$$python -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# PySODMetrics is the tests' reference; its own requirements would replace the contrib build of OpenCV, hence --no-deps.
# The live peer of the dense CRF needs a compiler: without one its tests alone are skipped.
$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,labels,onnx]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps pysodmetrics==1.6.2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[crf]' >/dev/null 2>&1 \
		|| echo "pydensecrf cannot be built here: the tests beside it live are skipped"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/msst demo --output_dir=demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile --no-loadscope-reorder

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
