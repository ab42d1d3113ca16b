# Every target sets up what it needs: a virtual environment in .venv with the package and its extras.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
OLDEST := .venv/oldest
QUANTISED := .venv/quantised

.PHONY: setup demo test test-oldest test-quantised lint format bench pretrain

setup: $(READY)

# Editable, so that a second call installs nothing unless pyproject.toml has changed.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[examples,dev]"
	touch $(READY)

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/python -m pytest

# The oldest dependencies lie in a folder in front of those of .venv, with which they share torch.
$(OLDEST)/requirements.txt: $(READY) .ci/oldest.py
	rm -rf $(OLDEST) && mkdir $(OLDEST)
	$(BIN)/python .ci/oldest.py > $@
	test ! -s $@ || $(BIN)/python -m pip install --quiet --no-deps --target $(OLDEST) --requirement $@

OLDEST_TESTS := registration config parity forward backbones peft_common transformers_integration pipelines

test-oldest: $(OLDEST)/requirements.txt
	@test -s $< || echo "The installed dependencies are the oldest: nothing else to test."
	test ! -s $< || PYTHONPATH=$(OLDEST) $(BIN)/python -m pytest $(OLDEST_TESTS:%=tests/test_%.py)

# bitsandbytes lies apart as well: where it is installed, every import of PEFT loads it and prints what it lacks.
$(QUANTISED): $(READY)
	rm -rf $@
	$(BIN)/python -m pip install --quiet --no-deps --target $@ "bitsandbytes>=0.50"

test-quantised: $(QUANTISED)
	PYTHONPATH=$(QUANTISED) $(BIN)/python -m pytest tests/test_quantised.py

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY)
	$(BIN)/python examples/benchmark.py

pretrain: $(READY)
	$(BIN)/python examples/pretrain_demo_clip.py

.DELETE_ON_ERROR:
