#!/usr/bin/env bash
# Everything that must hold: formatting, lint, types, tests. Installs what that needs into .venv.
# Arguments go to pytest: `bash scripts/test.sh -m nightly` runs the slow checks.
set -euo pipefail
. "$(dirname "$0")/environment.sh"
install mini,test

ruff format --check .
ruff check .
mypy
python -m pytest "$@"
