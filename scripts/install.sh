#!/bin/sh
# Installs $3 (this project, with extras) into the environment $2 made with the Python $1: by uv when present, else by pip.
set -eu
"$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "scalelab needs Python 3.11 or newer; $1 is $("$1" --version). Try: make PYTHON=python3.12" >&2; exit 2; }
if command -v uv >/dev/null 2>&1; then
    [ -x "$2/bin/python" ] || uv venv --quiet --python "$1" "$2"
    uv pip install --quiet --compile-bytecode --python "$2/bin/python" -c requirements.lock -e "$3"
else
    [ -x "$2/bin/python" ] || "$1" -m venv "$2"
    "$2/bin/python" -m pip install --quiet --disable-pip-version-check -c requirements.lock -e "$3"
fi
