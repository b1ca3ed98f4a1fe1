# Every target sets itself up; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup services protos demo up test outages-test layouts-test scenarios-test faults-test fuzz soak soak-fleet lint compose-test model pins clean

PROTOS := $(shell find protos -name '*.proto')
NATIVE := $(shell find services/kvlink -name '*.cpp' -o -name '*.h') services/kvlink/build_native.py
PROJECT := pyproject.toml protos/generate.py deploy/setup/python.sh $(wildcard requirements/*.txt)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: services .venv/.installed .venv/.stubs .venv/.native ## Make .venv, install etcd and Redis when missing

services:
	@deploy/setup/services.sh
	@deploy/setup/compiler.sh

.venv/.installed: $(PROJECT)
	@deploy/setup/python.sh
	@touch $@

.venv/.stubs: .venv/.installed $(PROTOS)
	@.venv/bin/python protos/generate.py
	@touch $@

.venv/.native: .venv/.installed $(NATIVE)
	@.venv/bin/python services/kvlink/build_native.py || true
	@touch $@

protos: .venv/.stubs ## Generate the stubs again after an edit of a .proto

demo: setup ## Start a fleet, serve, flip a role while serving, stop
	@.venv/bin/thunderserve demo

up: setup ## Keep the demo's fleet running until Ctrl-C
	@.venv/bin/thunderserve up

test: setup ## All tests but those that need Docker or a GPU
	@.venv/bin/pytest

outages-test: setup ## Kill, freeze and starve etcd and control replicas in turn; some minutes
	@.venv/bin/pytest -m outages -s tests/control

scenarios-test: setup ## Break emulated fleets under load, and check every token
	@.venv/bin/pytest -m scenarios tests/fleet/emulated

layouts-test: setup ## Exchange KV cache between real SGLang engines in every pair of tp and pp
	@.venv/bin/pytest -m layouts tests/kvlink/sglang_engines

faults-test: setup ## Cut kvlink's connections at every byte, flip every bit; a quarter of an hour
	@.venv/bin/pytest -m sweep tests/kvlink

INPUTS ?= 1000000
fuzz: setup ## Feed kvlink's parsers INPUTS inputs each, led by coverage
	@for target in frames messages control int4; do \
	  .venv/bin/python tests/kvlink/faults/fuzz.py $$target $(INPUTS) || exit 1; done
	@tests/kvlink/faults/fuzz_native.sh $(INPUTS)

soak: setup ## 10,000 transfers, then 1,000 requests with aborts in two real SGLang engines
	@.venv/bin/pytest -s -m soak tests/kvlink

MINUTES ?= 60
SEED ?= 0
soak-fleet: setup ## An emulated fleet under load and random faults for MINUTES, drawn from SEED
	@.venv/bin/python benchmarks/soak_fleet.py --minutes $(MINUTES) --seed $(SEED)

lint: setup ## Style, types, import contracts, proto rules
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@.venv/bin/pytest -q tests/repo

compose-test: setup ## Build the image, serve a completion from containers, remove all of it
	@deploy/compose/docker.sh .venv/bin/pytest -m docker -s tests/compose

model: setup ## Train the demo model again; about 80 minutes on one core
	@.venv/bin/python models/training/train.py

pins: setup ## Write the versions installed now to requirements/constraints.txt
	@deploy/setup/pins.sh

clean: ## Remove what the targets made
	rm -rf deploy/compose/wheels/*.whl .venv .run build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find services/kvlink -name '*.so' -delete
	find protos -name '*_pb2*.py*' -delete
