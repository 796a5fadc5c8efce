# Sourced by the other scripts: goes to the repository's root and makes the virtual environment .venv there.
# PYTHON chooses the interpreter (3.10 to 3.12).
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# install EXTRAS: make .venv if there is none, and install this checkout into it with the given extras.
install() {
    local python="${PYTHON:-}"
    if [ -z "$python" ]; then
        for candidate in python3.12 python3.11 python3.10 python3; do
            if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then
                python="$candidate"
                break
            fi
        done
    fi
    if [ -z "$python" ]; then
        echo "error: no Python 3.10 to 3.12 with venv found: install one, or name it, as in PYTHON=/path/to/python3.11" >&2
        exit 2
    fi
    if [ ! -x .venv/bin/python ]; then
        "$python" -m venv .venv
    fi
    . .venv/bin/activate
    python -m pip install --quiet --disable-pip-version-check --editable ".[$1]"
}
