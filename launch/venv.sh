# Sourced by the other scripts: makes .venv in the repository with a Python that the package
# supports, activates it, and installs the package with the extras in $1 (such as "[dev]").
make_venv() {
  if [ ! -x .venv/bin/python ]; then
    local python
    for python in "${PYTHON:-}" python3.12 python3.11 python3 python; do
      if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' \
        2>/dev/null; then
        "$python" -m venv .venv
        break
      fi
    done
    if [ ! -x .venv/bin/python ]; then
      echo "error: no Python of 3.11 or newer found; install one, or name it: PYTHON=/path/to/python" >&2
      exit 2
    fi
  fi
  # shellcheck disable=SC1091
  source .venv/bin/activate
  python -m pip install --quiet --disable-pip-version-check --editable ".$1"
}
