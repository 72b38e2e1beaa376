# The book: `make book` runs and renders it, `make test` says whether its results hold.
#
#   make run CHAPTER=why-energy PROFILE=full SEED=3 DEVICE=cuda PARAMS="n_seeds=10"
#
# Every target sets up .venv by itself; a second call starts at once.

PROFILE ?=
JOBS ?= 2
CHAPTER ?=
SEED ?=
DEVICE ?=
PARAMS ?=
ONLY ?=
SEEDS ?=
MACHINES ?=
SCHEDULER ?=
ANEW ?=
REASONS ?=
FROM ?=
TO ?=
TAG ?=
# Of each of the processes side by side: more threads than cores is slower than fewer.
THREADS := $(shell n=$$(( $$(getconf _NPROCESSORS_ONLN) / $(JOBS) )); echo $$(( n > 1 ? n : 1 )))

# Compiling torch's Python anew at each import costs seconds, of each kernel of each test.
unexport PYTHONDONTWRITEBYTECODE

PY := .venv/bin/python
EBM := $(PY) -m ebmbook.press
CHOSEN := $(if $(CHAPTER),--chapter "$(CHAPTER)")
SIZE := $(if $(PROFILE),--profile "$(PROFILE)")
# Through the environment: make would split a value at its spaces, and lose its quotes.
export PARAMS
GIVEN := $(SIZE) $(if $(SEED),--seed "$(SEED)") $(if $(PARAMS),--parameter "$$PARAMS")
FRESH ?=
# nbval: a whole notebook stays in one worker; records are judged in the quick profile, by its
# runs where these are fresh, else by a kernel; FRESH=1: by a kernel in any case.
NBVAL := -p no:cacheprovider -W default --nbval-lax --nbval-current-env --dist loadscope \
  $(if $(FRESH),,-p ebmbook.press.replay)

.PHONY: help book run sweep check record carry html test nbval lint diff cite release links \
  bench bench-training bench-refining bench-nuts gpu lock clean
.DEFAULT_GOAL := help

help:
	@echo "make book     run the chapters that changed (quick profile) and render them"
	@echo "make test     unit tests, theorems, pipeline, and the committed records against the runs"
	@echo "make nbval    the records alone: FRESH=1 executes them though their runs are fresh"
	@echo "make html     render the committed records, or a run: PROFILE= SEED= PARAMS=; executes nothing"
	@echo "make run      run chapters: CHAPTER= PROFILE=quick|full SEED= DEVICE= PARAMS='name=value ...'"
	@echo "make check    hold what ran against the ledger: CHAPTER= PROFILE= SEED= PARAMS="
	@echo "make sweep    how often verdicts hold: SEEDS=0..19 MACHINES=default,avx2,avx512 CHAPTER="
	@echo "              PROFILE= PARAMS= SCHEDULER=local:2|FILE|tcp://HOST:PORT (dask's workers)"
	@echo "make record   make the committed notebooks anew: CHAPTER= PROFILE=quick|full ANEW=1"
	@echo "make carry    keep full records across a change that changes no number: CHAPTER= REASONS="
	@echo "make diff     what changed in the ledger: FROM=v0.1.0 TO="
	@echo "make cite     CITATION.cff and .zenodo.json from pyproject.toml"
	@echo "make release  package, zip of the pages, sums and changes, into _build/release: TAG="
	@echo "make links    do the links out of the pages rendered last lead somewhere?"
	@echo "make bench    samplers against public peers, into _build/bench: ONLY='hmc/*/100'"
	@echo "make bench-training   a GAN's training against the plain loop, into _build/bench"
	@echo "make bench-refining   seconds of every way to use a discriminator, into _build/bench"
	@echo "make bench-nuts       effective draws a second of nuts, ours and public, into _build/bench"
	@echo "make gpu      device tests, samplers and picture chapters on a GPU: ten minutes, into _build/bench"
	@echo "make lint     ruff        make lock   pin the versions anew        make clean"

.venv/ready: requirements.lock pyproject.toml tools/setup.sh
	@sh tools/setup.sh

book: .venv/ready
	@$(EBM) run --profile quick --jobs $(JOBS)
	@$(EBM) html --profile quick
	@$(EBM) check --profile quick --brief

run: .venv/ready
	@$(EBM) run $(GIVEN) --jobs $(JOBS) $(CHOSEN) $(if $(DEVICE),--device "$(DEVICE)")

check: .venv/ready
	@$(EBM) check $(GIVEN) $(CHOSEN)

sweep: $(if $(SCHEDULER),.venv/sweep,.venv/ready)
	@$(EBM) sweep $(SIZE) $(if $(PARAMS),--parameter "$$PARAMS") --jobs $(JOBS) $(CHOSEN) \
	  $(if $(DEVICE),--device "$(DEVICE)") $(if $(SEEDS),--seeds "$(SEEDS)") \
	  $(if $(MACHINES),--machines "$(MACHINES)") $(if $(SCHEDULER),--scheduler "$(SCHEDULER)")

record: .venv/ready
	@$(EBM) record $(SIZE) --jobs $(JOBS) $(CHOSEN) $(if $(ANEW),--anew)

carry: .venv/ready
	@$(EBM) carry $(CHOSEN) $(if $(REASONS),--reasons "$(REASONS)")

html: .venv/ready
	@$(EBM) html $(GIVEN)

diff: .venv/ready
	@$(EBM) diff --since "$(FROM)" $(if $(TO),--until "$(TO)")

cite: .venv/ready
	@$(EBM) cite

# Of the records: another profile's pages are no release.
release: .venv/ready
	@$(EBM) html
	@$(EBM) release $(if $(TAG),--tag "$(TAG)")

links: .venv/ready
	@$(EBM) links

test: lint
	@OMP_NUM_THREADS=$(THREADS) $(PY) -m pytest -q -n $(JOBS) tests
	@$(MAKE) --no-print-directory nbval

nbval: .venv/ready
	@EBMREF_PROFILE=quick EBMREF_RESULTS="$(CURDIR)/_build/nbval" \
	  $(PY) -m pytest -q $(NBVAL) -n $(JOBS) book/*.ipynb

lint: .venv/ready
	@$(PY) -m ruff check -q . && $(PY) -m ruff format -q --check .

bench: .venv/peers
	@$(PY) bench/samplers.py $(if $(ONLY),--only "$(ONLY)")

bench-training: .venv/ready
	@$(PY) bench/training.py

bench-refining: .venv/ready
	@$(PY) bench/refining.py

bench-nuts: .venv/peers
	@$(PY) bench/nuts.py

gpu: .venv/ready
	@$(PY) bench/gpu.py

.venv/peers .venv/sweep: .venv/%: .venv/ready pyproject.toml
	@sh tools/setup.sh $*

lock: .venv/ready
	PATH="$$PATH:.venv/bin" uv pip compile -q --universal --generate-hashes --extra book --extra test \
	  --python-version 3.11 --custom-compile-command "make lock" -o requirements.lock pyproject.toml

clean:
	rm -rf _build results book/results
