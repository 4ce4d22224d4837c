# The other scripts source this file. `make_venv FOLDER EXTRAS` makes a virtual environment in
# FOLDER with a Python that the package supports, activates it, and installs the package with
# EXTRAS, such as "[dev]".
make_venv() {
  local folder=$1 extras=$2 python
  if [ ! -f "$folder/bin/activate" ]; then
    for python in "${PYTHON:-}" python3.12 python3.11 python3 python; do
      if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' \
        2>/dev/null; then
        "$python" -m venv "$folder"
        break
      fi
    done
    if [ ! -f "$folder/bin/activate" ]; then
      echo "error: no Python of 3.11 or newer found; install one, or name it: PYTHON=/path/to/python" >&2
      exit 2
    fi
  fi
  # shellcheck disable=SC1091
  source "$folder/bin/activate"
  # --no-compile, because most of what is installed is never imported.
  python -m pip install --quiet --disable-pip-version-check --no-compile --editable ".$extras"
}
