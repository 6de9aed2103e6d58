#!/usr/bin/env bash
# Make .venv with the pinned set of requirements.lock and this project in it. Safe to run again.
#   PYTHON=python3.12 bash scripts/setup_venv.sh      another interpreter
# A torch >= 2.10 that the interpreter already has (a GPU image, say) is kept; otherwise torch 2.13.0 is installed, the
# CPU build on a host without a GPU where your pip can reach one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    found=$("$python" --version 2>&1 || echo "no $python")
    echo "error: Python 3.11 or newer is needed, found $found; name one with PYTHON=/path/to/python3.11" >&2
    exit 2
fi

own_torch() { # the version of a torch >= 2.10 in the given interpreter, or nothing
    "$1" - <<'PY' 2>/dev/null || true
import importlib.metadata as metadata
version = metadata.version("torch")
if tuple(int(part) for part in version.split("+")[0].split(".")[:2]) >= (2, 10):
    print(version)
PY
}

# The packages of another virtual environment cannot be seen from a new one, only those of an installation.
kept_torch=
if "$python" -c 'import sys; sys.exit(sys.prefix != sys.base_prefix)'; then
    kept_torch=$(own_torch "$python")
fi
if [ ! -x .venv/bin/python ]; then
    echo "making .venv with $("$python" --version)"
    # With a torch already there, its packages are seen from inside; without, the environment is its own.
    "$python" -m venv .venv ${kept_torch:+--system-site-packages}
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

torch=$(own_torch .venv/bin/python)
constraints=requirements.lock
if [ -n "$torch" ] && [ "${torch%%+*}" != "2.13.0" ]; then
    echo "keeping torch $torch"
    constraints=.venv/requirements-own-torch.lock
    grep -vE '^(torch|triton|nvidia-|cuda-)' requirements.lock > "$constraints"
elif [ -z "$torch" ]; then
    if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
        echo "installing torch 2.13.0 for the GPU"
        pip install --quiet torch==2.13.0
    elif pip install --quiet torch==2.13.0+cpu 2>/dev/null; then
        echo "installed torch 2.13.0, CPU build"
    else
        echo "no GPU here, and your pip reaches no CPU build of torch; installing the standard one (several GB)" >&2
        pip install --quiet torch==2.13.0
    fi
fi

echo "installing the pinned set"
pip install --quiet --requirement "$constraints"
pip install --quiet --no-deps --no-build-isolation --editable .
touch .venv/.ready
.venv/bin/python -m xray_vqa --version
echo "ready; activate with: source .venv/bin/activate"
