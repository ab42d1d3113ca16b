# Every target sets up what it needs: a virtual environment in .venv with the package and its extras.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
OLDEST := .venv/oldest
QUANTISED := .venv/quantised
# Tests run in two processes of one thread and up to 4 GB each; `make WORKERS=4 test`: in four.
WORKERS ?= 2
PARALLEL := --numprocesses $(WORKERS) --dist worksteal

.PHONY: setup demo test test-oldest test-quantised lint format bench gpu gpu-wheels pretrain

setup: $(READY)

# Editable, so that a second call installs nothing unless pyproject.toml has changed.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[examples,dev]"
	touch $(READY)

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/python -m pytest $(PARALLEL)

# An environment of its own, in which every `>=` of pyproject.toml is an `==`.
$(OLDEST)/.ready: pyproject.toml
	rm -rf $(OLDEST) && $(PYTHON) -m venv $(OLDEST)
	grep -oE '[A-Za-z0-9_-]+>=[0-9.]+' $< | sed 's/>=/==/' > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt \
		--editable ".[examples]" hypothesis pytest pytest-xdist pyyaml
	touch $@

OLDEST_TESTS := registration config parity forward backbones classes adapters peft_common \
	transformers_integration pipelines trainer training views data pictures transforms metrics

test-oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest $(PARALLEL) $(OLDEST_TESTS:%=tests/test_%.py)

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

# Checks and speed on a GPU, or word that there is none. The second is for a machine without network: it collects the
# libraries but PyTorch as wheels for its Python (`make GPU_PYTHON=3.12 gpu-wheels`), to be laid beside the clone.
gpu: $(READY)
	$(BIN)/python tests/gpu/run.py

GPU_PYTHON ?= 3.12
gpu-wheels: $(READY)
	mkdir -p outputs/gpu-wheels
	$(BIN)/python -m pip freeze --exclude-editable | grep -viE '^(torch|triton|nvidia|cuda)' > outputs/gpu-requirements.txt
	$(BIN)/python -m pip download --quiet --no-deps --only-binary :all: --python-version $(GPU_PYTHON) \
		--dest outputs/gpu-wheels --requirement outputs/gpu-requirements.txt

pretrain: $(READY)
	$(BIN)/python examples/pretrain_demo_clip.py

.DELETE_ON_ERROR:
