#!/usr/bin/env bash
# Builds the documentation into build/docs. It runs the gallery's scripts and the notebook, which
# takes two to three minutes; the results are kept for the next time. Warnings are errors, and every
# link within the site and to files is checked.
#   bash launch/docs.sh && python -m http.server --directory build/docs
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${VIRTUAL_ENV:-}" ]; then
  source launch/venv.sh
  make_venv .venv-docs "[docs]"
fi
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" PYTHONPATH="$PWD"
python -m sphinx --fail-on-warning --keep-going --quiet -c docs . build/docs "$@"
echo "written: build/docs/docs/index.html"
