#!/usr/bin/env bash
# Measures the paper's system on one NVIDIA GPU, in the active environment: memory, each part and each
# step, against eager and compiled PyTorch (if installed), over the number of snapshots, and the E2E
# and student's training of configs/paper. Rows, tables and plots go to results/benchmark-gpu.
# Needs KDPR_DATA_DIR for the trainings; TEACHER names a trained teacher's folder, or one is trained.
set -euo pipefail
cd "$(dirname "$0")/.."

# Two frameworks share the GPU: neither may take it all.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.5}"
python -c 'import jax, sys; sys.exit(jax.default_backend() != "gpu")' || {
  echo "error: JAX sees no GPU here; pip install -e '.[cuda12]' or '.[cuda13]'" >&2
  exit 2
}

out=results/benchmark-gpu
benchmark() { python -m jax_kdpr.benchmark --config configs/paper/student.py "$@"; }
benchmark --compile_only --output "$out/memory"
benchmark --output "$out"
benchmark --config.net.precision=bfloat16 --output "$out/bfloat16"
if python -c 'import torch' 2>/dev/null; then
  benchmark --against torch --output "$out"
  benchmark --against torch-compile --output "$out"
fi
benchmark --sweep snapshots=1,3,9,15 --sweep iterations=10,25,50,100 --output "$out"

teacher="${TEACHER:-runs/paper/teacher}"
train() { python -m jax_kdpr.train --config "configs/paper/$1.py" --workdir "$2" "${@:3}"; }
if [ -z "${TEACHER:-}" ]; then train teacher "$teacher"; fi
train e2e runs/paper/e2e
train student runs/paper/student --config.distill.teacher="$teacher"
for precision in float32 bfloat16; do
  train e2e "runs/paper/e2e-$precision" --config.net.precision="$precision"
done
