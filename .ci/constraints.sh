#!/usr/bin/env bash
# Writes .ci/constraints.txt anew: one set of versions for every supported Python, without hosts or paths.
# A maintainer runs it (`make constraints`) after a dependency changed. uv does not read pip's configuration,
# so it is told here which index pip uses.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/.."

setting() { .venv/bin/python -m pip config list | sed -nE "s/^[^.]*\.\.?$1='(.*)'\$/\1/p" | tail -n 1; }
export_setting() { if [ -n "$2" ]; then export "$1=$2"; fi; }
export_setting UV_DEFAULT_INDEX "$(setting index-url)"
export_setting UV_INDEX "$(setting extra-index-url)"
export_setting UV_FIND_LINKS "$(setting find-links)"
export_setting SSL_CERT_FILE "$(setting cert)"

test -x build/uv/bin/uv || { python3 -m venv build/uv && build/uv/bin/pip install -q uv; }

{
    echo "# Made by .ci/constraints.sh for Python 3.10 and up. Not written by hand."
    { echo "./[bench,cmdorc]"; for file in plugins/*/pyproject.toml; do echo "./${file%/*}"; done; cat .ci/requirements*.txt; } |
        build/uv/bin/uv pip compile --quiet --universal --python-version 3.10 --index-strategy unsafe-best-match \
            --upgrade --no-annotate --no-header --no-emit-index-url --no-emit-find-links - |
        grep -v -E '^(\./|-e )'
} > build/constraints.txt
mv build/constraints.txt .ci/constraints.txt
