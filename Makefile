# A thin face over CMake, ctest and the scripts; nothing is decided here.
.DEFAULT_GOAL := help
.PHONY: help setup build test test-full demo bench docs wheel macos mac-kit format lint clean

# PoCL ends the whole process where it cannot see the machine, as in a chroot without /sys: tell it the little it asks.
ifeq ($(wildcard /sys/devices/system/cpu/.),)
memory := $(shell awk '/^MemTotal/ { printf "%.0f", $$2 * 1024 }' /proc/meminfo)
export HWLOC_SYNTHETIC ?= numa:1(memory=$(memory)) core:$(shell nproc) pu:1
endif

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## install what is missing: apt packages, .venv with pinned versions
	@scripts/setup

build: setup ## build the library and the backends into build/release
	@cmake --preset release >build/cmake.log 2>&1 || { cat build/cmake.log; exit 1; }
	@cmake --build build/release

test: build ## run the tests of the day: 20 minutes on two processors
	@scripts/test $(ARGS)

test-full: build ## run every test
	@scripts/test --full

demo: build ## serve three models with the real server and show what umo saves
	@.venv/bin/python -m umo.demo $(ARGS)

bench: build ## run the benchmarks, write build/bench.jsonl
	@.venv/bin/python bench/run.py $(ARGS)

docs: build ## build the site into build/docs/html; warnings are errors
	@.venv/bin/python -m sphinx -b html -W --keep-going -q -d build/docs/.doctrees docs build/docs/html

wheel: setup ## make the wheels of all platforms and check them: build/wheel/dist
	@scripts/wheel $(ARGS)

macos: setup ## build everything for macOS, both architectures, into build/macos
	@scripts/macos $(ARGS)

mac-kit: setup ## make what somebody with a Mac runs once: build/macos/umo-mac-check.tar.gz
	@tools/mac-check/make-kit

format: setup ## put all sources into the project's form
	@scripts/lint --fix

lint: build ## check form, spelling and the usual mistakes
	@scripts/lint

clean: ## remove what was built; .venv stays
	rm -rf build
