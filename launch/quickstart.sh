#!/usr/bin/env bash
# Goes from nothing to a designed mask: makes .venv, installs the package, trains the four systems
# of the paper on procedural scenes, and writes one table and one figure. When the script is called
# again, an interrupted run goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh
make_venv .venv ""

# The four runs share compiled programs where they can.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$PWD/.cache/jax}"

runs=runs/quickstart
train() {
  echo
  echo "== $1"
  python -m jax_kdpr.train --config "configs/quickstart/$1.py" --workdir "$runs/$1" "${@:2}"
}
train teacher
train random
train e2e
train student --config.distill.teacher="$runs/teacher"

echo
python -m jax_kdpr.evaluate --workdir "$runs"/{teacher,random,e2e,student}
