#!/usr/bin/env bash
# Makes .venv, installs the package with its development tools, and checks formatting, lint and
# types. Then it runs the tests that neither train nor run a command to its end or, with `--all`,
# all of them, as .ci/run does. KDPR_DATA_DIR, if set, is the folder of the four Fashion-MNIST
# files; without it the tests that need them are skipped. Other arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
tests="not slow"
if [ "${1:-}" = --all ]; then
  tests=""
  shift
fi
source launch/venv.sh
make_venv .venv "[dev]"

ruff format --check .
ruff check .
pyright
# One process a core: most of the time goes into compiling, which uses one core. When all cores are
# busy, OpenBLAS's threads only wait for each other.
export OPENBLAS_NUM_THREADS=1
# The files go in the order of their names: by default those with few but slow tests would come
# last, one of them alone.
python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "$tests" "$@"
