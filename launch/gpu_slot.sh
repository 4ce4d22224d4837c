#!/usr/bin/env bash
# Uses a GPU that is available for a few minutes, on a machine without a network. It needs the
# folder that pack_for_gpu.sh made. `gpu_slot.sh check [STAGE ...]` tests and times (under 240 s).
# `gpu_slot.sh train [EPOCHS [SEED]]` trains the paper's four systems and two of ours (under 540 s).
# Results go to $OUT as soon as they are known. With KDPR_SLOT_SIZE=32 everything is small, for a
# rehearsal on a CPU.
set -euo pipefail
OUT="$(realpath -m "${OUT:-out}")"
if [ -n "${KDPR_EARLIER:-}" ]; then KDPR_EARLIER="$(realpath "$KDPR_EARLIER")"; fi # or the pack's
pack="$(cd "$(dirname "$0")" && pwd)"
[ -d "$pack/wheels" ] || pack="$pack/../build/gpu"
cd "$pack"
mkdir -p "$OUT"

KDPR_WORK="$(mktemp -d)"
trap 'rm -rf "$KDPR_WORK"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-index --no-deps --root-user-action=ignore \
  --target "$KDPR_WORK/site" wheels/*.whl
export OUT KDPR_WORK PYTHONPATH="$KDPR_WORK/site" KDPR_DATA_DIR="$PWD/data"
export JAX_COMPILATION_CACHE_DIR="$KDPR_WORK/compiled"
KDPR_COMMIT="$(cat commit)"
export KDPR_COMMIT
python3 gpu_slot.py "$@"
