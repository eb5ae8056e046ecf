# What one can do here; `make` alone lists it. Each target sets itself up (tools/setup.sh).

CAMERA ?= pattern
ARGS ?=
WORKERS ?= 4
VENV_TEST := .venv-test/bin

.PHONY: help run test lint docs bench

help: ## list what one can do here
	@echo 'make TARGET'
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

run: ## start the portal on a moving test picture; CAMERA=0 takes the first camera; ARGS="--port 8080 --fps 10"
	@python=$$(tools/setup.sh run '$(CAMERA)') && exec "$$python" soft_stream.py --camera '$(CAMERA)' $(ARGS)

test: ## run all tests, four at a time; ARGS="-k snapshot" runs some, WORKERS=0 one after the other
	@tools/setup.sh test
	@$(VENV_TEST)/python -m pytest -n $(WORKERS) $(ARGS)

lint: ## check style, types and shell
	@tools/setup.sh lint
	$(VENV_TEST)/python -m ruff check
	$(VENV_TEST)/python -m ruff format --check
	$(VENV_TEST)/python -m mypy
	tools/shellcheck.sh

docs: ## regenerate the tables in docs/ and the env file
	@tools/setup.sh lint
	@$(VENV_TEST)/python tools/render_docs.py

bench: ## measure the portal against ustreamer and others, ten minutes; ARGS="--quick" shows that it works
	@tools/setup.sh bench
	$(VENV_TEST)/python bench/run.py $(ARGS)
