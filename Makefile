# Everything sets up what it needs: a fresh machine wants only Python 3.11 or later and make.
PYTHON  ?= python3
CONFIG  ?= configs/complete_journey.yaml
AS_OF   ?= 2018-01-01
PORT    ?= 5000
OUTPUT  := output/complete_journey
BIN     := .venv/bin
READY   := .venv/.ready
RUN     := $(BIN)/beforehand

.DEFAULT_GOAL := help
.PHONY: help demo train score nightly show validate ui test test-spark check docs bench lock clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "  Variables: CONFIG=$(CONFIG) AS_OF=$(AS_OF) PORT=$(PORT)"

demo: $(OUTPUT)/.demo ## train, score and show a year of real grocery purchases (about 3 minutes)
	@$(RUN) show

$(OUTPUT)/.demo: configs/complete_journey.yaml | $(READY)
	@$(RUN) nightly --as-of 2018-01-01 > /dev/null
	@touch $@

train: $(READY) ## train CONFIG on what was known at AS_OF
	@$(RUN) train --config $(CONFIG) --as-of $(AS_OF)

score: $(READY) ## score the night of AS_OF
	@$(RUN) score --config $(CONFIG) --as-of $(AS_OF)

nightly: $(READY) ## train when champions are missing or old, then score
	@$(RUN) nightly --config $(CONFIG) --as-of $(AS_OF)

show: $(READY) ## show the latest night of CONFIG
	@$(RUN) show --config $(CONFIG)

validate: $(READY) ## check CONFIG and its sources, write nothing
	@$(RUN) validate --config $(CONFIG) --as-of $(AS_OF)

ui: $(READY) ## open the MLflow UI on the models of CONFIG
	@$(RUN) ui --config $(CONFIG) --port $(PORT)

test: $(READY) ## run the whole suite
	@$(BIN)/pytest -n 2 --dist loadfile

test-spark: $(READY) ## run what must hold on Spark, in a small cluster here; needs Java 17 or later
	@if $(BIN)/python -c 'import sys; from features.spark import OLDEST_JAVA, java_version; sys.exit((java_version() or 0) < OLDEST_JAVA)'; \
	then $(BIN)/pytest -m spark --durations=5; \
	else printf '\n*** SKIPPED: nothing was tested on Spark, since there is no Java 17 or later (README says how to get it). ***\n\n'; fi

check: $(READY) ## lint, types, architecture, docs up to date
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python docs/generate.py --check

docs: $(READY) ## write the generated pages of docs/
	@$(BIN)/python docs/generate.py

bench: $(READY) ## measure what the README claims; for the feature engine, in an hour: benchmarks/feature_engine.py
	@$(BIN)/python benchmarks/complete_journey.py
	@$(BIN)/python benchmarks/best_possible.py
	@$(BIN)/python benchmarks/target_models.py
	@$(BIN)/python benchmarks/segments.py
	@$(BIN)/python benchmarks/segment_stage.py
	@test -d data/clickstream || $(RUN) simulate --users 5000 --days 500 --seed 7 --output data/clickstream > /dev/null
	@$(BIN)/python benchmarks/personas.py

lock: $(READY) ## resolve requirements.lock anew
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --extra dev --extra spark --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --quiet --upgrade --output-file requirements.lock

clean: ## remove the virtual environment; output stays
	rm -rf .venv

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("beforehand needs Python 3.11 or later, this is " + sys.version.split()[0] + "; say which with make PYTHON=/path/to/python3")'
	@echo "setting up .venv from requirements.lock (once, some minutes)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
