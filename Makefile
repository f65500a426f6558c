# Two commands do all set-up themselves: `make demo` and `make test`.

PYTHON ?= python3
# tflite-runtime ends at Python 3.11; it gets an environment of its own because it needs numpy 1.
TFLITE_PYTHON ?= $(shell command -v python3.11 || command -v python3.10 || command -v $(PYTHON))

VENV := .venv
BIN := $(VENV)/bin
TFLITE_VENV := .venv-tflite

# On shared cores torch with two threads can be ten times slower than with one.
export OMP_NUM_THREADS := 1

.PHONY: demo test check setup system system-tests clean

demo: setup system
	$(BIN)/edgenet summary
	$(BIN)/edgenet convert mobilenet_v1 -o bundles/mobilenet_v1 --force
	$(BIN)/edgenet evaluate bundles/mobilenet_v1 --data photographs
	$(BIN)/python tools/live_demo.py bundles/mobilenet_v1

test: setup system system-tests $(TFLITE_VENV)/.ready check
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tools/virtual_board/cli.py
	$(BIN)/mypy tools/bench/arm_instructions.py tools/bench/arm_layers.py

setup: $(VENV)/.ready

system:
	tools/install_system_packages.sh demo

system-tests:
	tools/install_system_packages.sh tests

$(VENV)/.ready: pyproject.toml constraints.txt
	tools/make_venv.sh $(PYTHON) $(VENV) -c constraints.txt -e '.[convert,board,mqtt,viewer]' --group dev
	touch $@

$(TFLITE_VENV)/.ready: pyproject.toml
	tools/make_venv.sh $(TFLITE_PYTHON) $(TFLITE_VENV) -e '.[tflite-runtime,board]'
	touch $@

clean:
	rm -rf $(VENV) $(TFLITE_VENV) bundles records
