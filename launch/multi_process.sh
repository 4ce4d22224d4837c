#!/usr/bin/env bash
# One training by N processes of this machine:
#   bash launch/multi_process.sh N --config FILE --workdir FOLDER
# Everything after N goes to `python -m jax_kdpr.train`. Each process has the devices that JAX shows
# it: one on the CPU, or a GPU of its own, in order. Ctrl-C saves and leaves, as with one process.
set -euo pipefail
processes=${1:?"how many processes?"}
shift
port="${PORT:-$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')}"
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=1 --xla_cpu_multi_thread_eigen=false"
gpus=()
if command -v nvidia-smi > /dev/null; then
  given="${CUDA_VISIBLE_DEVICES:-$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -s -d,)}"
  IFS=, read -ra gpus <<< "$given"
  if [ "${#gpus[@]}" -lt "$processes" ]; then
    echo "error: expected at most ${#gpus[@]} processes, one a GPU, got $processes" >&2
    exit 2
  fi
fi
started=()
trap 'kill -TERM "${started[@]}" 2> /dev/null || true' INT TERM
for process in $(seq 0 $((processes - 1))); do
  own=()
  if [ "${#gpus[@]}" -gt 0 ]; then own=("CUDA_VISIBLE_DEVICES=${gpus[process]}"); fi
  env "${own[@]}" python -m jax_kdpr.train "$@" \
    --coordinator "127.0.0.1:$port" --processes "$processes" --process "$process" &
  started+=($!)
done
code=0
for one in "${started[@]}"; do
  ended=0
  wait "$one" || ended=$?
  while kill -0 "$one" 2> /dev/null; do # the trap ended the wait, not the process
    ended=0
    wait "$one" || ended=$?
  done
  [ "$code" != 0 ] || code=$ended # the first process says what was wrong
done
exit "$code"
