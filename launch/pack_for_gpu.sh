#!/usr/bin/env bash
# Packs into a folder (build/gpu, or the first argument) what `gpu_slot.sh` needs on a machine with
# a GPU and no network: the package and what it needs beside Python 3.12, JAX, Flax, Optax, Orbax
# and SciPy; Fashion-MNIST from KDPR_DATA_DIR; tests and configs; and the commit. KDPR_EARLIER is a
# folder with the runs that earlier calls of `gpu_slot.sh train` brought back.
set -euo pipefail
cd "$(dirname "$0")/.."

folder="${1:-build/gpu}"
# imagecodecs (28 MB) is left out: it decodes image files, and none are packed.
lacking="dm-pix ml_collections beartype"
most=$((64 * 2**20)) # bytes

[ -n "${KDPR_DATA_DIR:-}" ] || {
  echo "error: KDPR_DATA_DIR: expected the folder of the Fashion-MNIST files; set it" >&2
  exit 2
}
if [ -e "$folder" ] && [ ! -e "$folder/commit" ]; then
  echo "error: $folder: was not made by this script; name another folder, or remove it" >&2
  exit 2
fi
rm -rf "$folder"
mkdir -p "$folder/wheels" "$folder/data" "$folder/earlier"
commit="$(git rev-parse --short=12 HEAD)"
[ -z "$(git status --porcelain --untracked-files=no)" ] || commit="$commit+"
echo "$commit" > "$folder/commit" # first, because by this file the next call knows our folder
pip="python -m pip --quiet --disable-pip-version-check"
# The wheel is built from a copy: setuptools would leave its own folders beside the sources, and
# take old ones in.
source="$(mktemp -d)"
trap 'rm -rf "$source"' EXIT
git ls-files -z jax_kdpr pyproject.toml README.md LICENSE | xargs -0 cp --parents -t "$source"
$pip wheel --no-deps --wheel-dir "$folder/wheels" "$source"
# shellcheck disable=SC2086
$pip download --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 --no-deps \
  --dest "$folder/wheels" $lacking
for name in train t10k; do cp "$KDPR_DATA_DIR/$name-images-idx3-ubyte.gz" "$folder/data/"; done
git ls-files -z tests configs pyproject.toml | xargs -0 cp --parents -t "$folder"
cp launch/gpu_slot.sh launch/gpu_slot.py "$folder/"
if [ -n "${KDPR_EARLIER:-}" ]; then cp "$KDPR_EARLIER"/*.tar.gz "$folder/earlier/"; fi

size="$(du --summarize --bytes "$folder" | cut -f1)"
if [ "$size" -gt "$most" ]; then
  echo "error: $folder: $size bytes, expected at most $most; leave out runs of KDPR_EARLIER" >&2
  exit 2
fi
echo "$folder: $size bytes, commit $commit"
