PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
# Where the wheel is installed with nothing but what it asks for.
WHEEL ?= .venv-wheel
# AdapterHub's library wants an older transformers, so it lives in an environment of its own.
INTEROP ?= .venv-interop
EXCHANGE = $(INTEROP)/exchange
# PEFT's source distribution has the tests that its wheel lacks.
PEFT = $(INTEROP)/peft
# llama.cpp's converter comes with the source distribution of its Python bindings.
LLAMA_CPP = $(INTEROP)/llama_cpp
# TRL runs on the versions that are installed; it is kept apart from them.
TRL = $(INTEROP)/trl
# The part of vLLM that reads LoRAs, kept apart like it.
VLLM = $(INTEROP)/vllm

# pip would compile all of every library, which takes longer than to install them; Python compiles what it imports.
export PIP_NO_COMPILE = 1

.PHONY: install test fast fuzz lint docs faults interop adapterhub peft llama-cpp trl vllm bench demo wheel-demo lock micro clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --use-pep517 --constraint constraints.txt --editable '.[bench,dev,docs,gguf,quantized,ray,tracking]'
	touch $(STAMP)

test:                     ## everything that CI runs
	$(MAKE) --no-print-directory -j2 install $(INTEROP)/.installed
	$(MAKE) --no-print-directory -j3 lint interop
	$(BIN)/pytest --durations=40 --durations-min=5

fast: install             ## neither what is slow nor what needs real models
	$(BIN)/pytest -m "not slow and not real"

faults: install           ## full disks, kills and signals at every write of four commands: an hour or two
	REGRAFT_FAULTS=all $(BIN)/pytest -n 0 -s tests/test_faults.py

# So many bad inputs, and of which seed: as many as you like.
CASES ?= 10000
SEED ?= 0

fuzz: install             ## bad inputs for every command; CI tries 2,000
	REGRAFT_FUZZ_CASES=$(CASES) REGRAFT_FUZZ_SEED=$(SEED) $(BIN)/pytest -q tests/test_fuzz.py

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install             ## the documentation site, in docs/_build; no network, warnings are errors
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

$(INTEROP)/.installed: tests/interop/requirements.txt
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/pip install --quiet --use-pep517 --requirement tests/interop/requirements.txt
	touch $@

$(PEFT)/.fetched: $(STAMP)
	rm -rf $(PEFT)
	mkdir -p $(PEFT)
	version=$$($(BIN)/python -c 'from importlib.metadata import version; print(version("peft"))') && \
	$(BIN)/pip download --quiet --no-deps --no-binary peft --dest $(PEFT) peft==$$version
	tar --no-same-owner -xzf $(PEFT)/peft-*.tar.gz -C $(PEFT) --strip-components 1
	touch $@

$(LLAMA_CPP)/.fetched: $(STAMP)
	rm -rf $(LLAMA_CPP)
	mkdir -p $(LLAMA_CPP)
	$(BIN)/pip download --quiet --no-deps --no-binary llama-cpp-python --dest $(LLAMA_CPP) llama-cpp-python==0.3.36
	tar --no-same-owner -xzf $(LLAMA_CPP)/llama_cpp_python-*.tar.gz -C $(LLAMA_CPP) --strip-components 3 --wildcards '*/vendor/llama.cpp/*.py'
	touch $@

$(TRL)/.fetched: $(STAMP)
	rm -rf $(TRL)
	$(BIN)/pip install --quiet --no-deps --target $(TRL) trl==1.16.0
	touch $@

interop: trl adapterhub peft llama-cpp  ## TRL, AdapterHub's library, PEFT's own tests and llama.cpp's converter on what is ours

# Their models are tiny, and several of them run at once.
trl adapterhub peft llama-cpp: export OMP_NUM_THREADS = 1
trl peft llama-cpp: export HF_HUB_OFFLINE = 1

trl: install $(TRL)/.fetched
	PYTHONPATH=$(TRL) $(BIN)/python tests/interop/check_trl.py

adapterhub: install $(INTEROP)/.installed
	rm -rf $(EXCHANGE)
	$(BIN)/python tests/interop/write_directories.py $(EXCHANGE)
	$(INTEROP)/bin/python tests/interop/check_adapterhub.py $(EXCHANGE)
	$(BIN)/python tests/interop/read_directories.py $(EXCHANGE)

peft: install $(PEFT)/.fetched
	$(BIN)/python tests/interop/check_peft.py $(PEFT)

llama-cpp: install $(LLAMA_CPP)/.fetched
	$(BIN)/python tests/interop/check_llama_cpp.py $(LLAMA_CPP)

$(VLLM)/.fetched: $(STAMP) tests/interop/requirements-vllm.txt
	rm -rf $(VLLM)
	$(BIN)/pip install --quiet --no-deps --target $(VLLM) --requirement tests/interop/requirements-vllm.txt
	touch $@

vllm: install $(TRL)/.fetched $(VLLM)/.fetched  ## vLLM's own loader on what is ours, on a CPU; a gigabyte to install
	HF_HUB_OFFLINE=1 PYTHONPATH=$(TRL):$(VLLM) $(BIN)/python tests/interop/check_vllm.py

demo: install             ## the whole idea in two minutes, on models that ship with regraft
	$(BIN)/regraft demo

wheel-demo: install       ## the demo from the wheel, in an environment that holds nothing else; some minutes
	rm -rf build $(WHEEL)
	$(BIN)/python -m hatchling build --target wheel --directory build
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/pip install --quiet --constraint constraints.txt build/*.whl
	cd build && $(abspath $(WHEEL))/bin/regraft demo

lock:                     ## uv.lock again, with the versions of constraints.txt; needs uv
	uv lock $$(sed -n '/^[^#]/s/^/--upgrade-package /p' constraints.txt)

micro: install            ## make those models again: minutes, the same on the same machine and versions
	$(BIN)/python recipes/micro_models.py --out src/regraft/demo

bench: install            ## the tables of the README; needs REGRAFT_DATA
	$(BIN)/python benchmarks/speed.py
	$(BIN)/regraft experiment run benchmarks/wikineural.yaml
	$(BIN)/regraft report results/wikineural --replace

clean:
	rm -rf $(VENV) $(INTEROP) $(WHEEL) build .mypy_cache .pytest_cache .ruff_cache
