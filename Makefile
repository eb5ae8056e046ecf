# `make` alone lists the targets. Each target installs what it needs with tools/setup.sh.

CAMERA ?= pattern
ARGS ?=
WORKERS ?= 4
VENV_TEST := .venv-test/bin
PYTHON_TEST := $(VENV_TEST)/python
# Each pytest worker imports all tests: with this cache in half the time.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/bytecode
unexport PYTHONDONTWRITEBYTECODE
SHELL_FILES := $(wildcard *.sh */*.sh */*/*.sh .ci/run)

.PHONY: help run check test lint format docs coverage bench fuzz soak load deb release

help: ## list the targets
	@echo 'make TARGET'
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

run: ## start the portal on the pattern camera, a moving test image; CAMERA=0 uses the first camera; ARGS="--port 8080 --fps 10"
	@python=$$(tools/setup.sh run '$(CAMERA)') && exec "$$python" soft_stream.py --camera '$(CAMERA)' $(ARGS)

check: lint ## lint, types and unit tests, in under 90 s on two cores: run it after every change
	$(PYTHON_TEST) -m pytest -q -n $(WORKERS) tests/unit $(ARGS)

test: ## run all tests, 4 in parallel; ARGS="-k snapshot" selects tests, WORKERS=0 runs them one by one
	@tools/setup.sh test
	@$(PYTHON_TEST) -m pytest -n $(WORKERS) $(ARGS)

lint: ## check style, types, shell scripts, words and spelling
	@tools/setup.sh lint
	$(PYTHON_TEST) -m ruff check
	$(PYTHON_TEST) -m ruff format --check
	$(PYTHON_TEST) -m mypy
	@if command -v shellcheck >/dev/null; then set -x; shellcheck $(SHELL_FILES); \
	else echo 'shellcheck is not installed: shell files not checked' >&2; test -z "$$CI"; fi
	$(PYTHON_TEST) tools/check_words.py
	$(VENV_TEST)/codespell

docs: ## regenerate the tables in docs/ and the env file
	@tools/setup.sh lint
	@$(PYTHON_TEST) tools/render_docs.py

format: ## format the code and sort imports
	@tools/setup.sh lint
	$(PYTHON_TEST) -m ruff check --fix
	$(PYTHON_TEST) -m ruff format

coverage: ## run the unit tests and print their coverage; fails below the limit in pyproject.toml
	@tools/setup.sh lint
	$(PYTHON_TEST) -m coverage run -m pytest -q tests/unit $(ARGS)
	$(PYTHON_TEST) -m coverage report

bench: ## measure the portal against ustreamer and others, twelve minutes; ARGS="--quick" checks that the benchmark works
	@tools/setup.sh bench
	$(PYTHON_TEST) bench/run.py $(ARGS)

fuzz: ## send random requests to a portal for an hour; ARGS="--seconds 600 --seed 7" repeats a run
	@tools/setup.sh test
	@$(PYTHON_TEST) -m tests.endurance.fuzz $(ARGS)

soak: ## use a portal at random for an hour, and check that nothing is left behind; ARGS="--plot soak.svg" draws it
	@tools/setup.sh test
	@$(PYTHON_TEST) -m tests.endurance.soak $(ARGS)

load: ## measure a portal with 250 viewers against an idle one; ARGS="--seconds 60" is the time for each
	@tools/setup.sh test
	@$(PYTHON_TEST) -m tests.endurance.load $(ARGS)

deb: ## build the Debian package in dist/, checked by lintian
	@tools/setup.sh deb
	@python3 tools/build_release.py deb

release: check ## build all parts of a release in dist/: sources, wheel, zipapp, Debian package, SBOM, checksums
	@tools/setup.sh release
	@$(PYTHON_TEST) tools/build_release.py all
