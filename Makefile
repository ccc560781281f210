# make demo | test | bench | lint | clean. Each sets its environment up first (see .ci/).
SHELL := /bin/bash
.SHELLFLAGS := -eo pipefail -c
.DEFAULT_GOAL := help

# percent of the core's lines that the tests must run
COVERAGE_MIN ?= 90

in_ros := . .ci/ros.bash &&

.PHONY: help setup build demo test gpu bench lint clean distclean

help:
	@echo 'make setup   install the environment into .venv (every other target does so first)'
	@echo 'make build   build the package with colcon into install/'
	@echo 'make demo    run the whole graph on a generated apron drive'
	@echo 'make test    run every test'
	@echo 'make gpu     run the tests that need a GPU and TensorRT with PYTHON (python3)'
	@echo 'make bench   time the stages beside the usual alternatives'
	@echo 'make lint    ruff and mypy'
	@echo 'make clean   remove builds and caches; make distclean also the environments'
	@echo 'ROS_DISTRO=humble make ... uses the Humble tree where no ROS 2 is sourced'

setup:
	@.ci/environment.sh

build: setup
	@.ci/build.sh

demo: build
	@$(in_ros) python -m airside_perception.demo $(ARGS)

test: build
	@COVERAGE_MIN=$(COVERAGE_MIN) .ci/test.sh $(ARGS)

gpu:
	@.ci/gpu.sh $(ARGS)

bench: build
	@$(in_ros) python -m benchmarks $(ARGS)

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/mypy

clean:
	rm -rf build install log
	rm -rf .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name '.venv*' -prune -o -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-3.10 .venv-3.11 .venv-nuscenes
