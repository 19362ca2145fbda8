#!/usr/bin/env bash
# Makes or renews .venv: every distribution of this repository, editable, and what developing and testing needs.
# `make env` calls it when a pyproject.toml, a requirements list or the constraints changed. A new .venv is made with
# $PYTHON, otherwise with the first of python3 and python3.13 down to python3.10 that fits.
set -euo pipefail
cd "$(dirname "$0")/.."

# What the tests need from the system: venv, which Debian's bare python3 lacks, a browser, tmux and Prometheus.
install_system_package() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1"
    else
        echo "error: this needs the system package '$1'. Install it and run make again." >&2
        return 1
    fi
}

# Programs of a Debian package, put into .venv: installing this one would start a server. Needs apt, and no root.
take_programs() {
    local bin=$PWD/.venv/bin folder fault=0
    folder=$(mktemp -d)
    (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download "$1" \
        && dpkg-deb --fsys-tarfile ./*.deb | tar -xC "$bin" --strip-components 3 "${@:2}") || fault=1
    rm -rf "$folder"
    return "$fault"
}

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.10 to 3.13 is needed, and ${PYTHON:-python3} is $(
        "${PYTHON:-python3}" --version 2>/dev/null || echo 'not there'
    ). Name one that fits: make env PYTHON=python3.13" >&2
    return 1
}

if ! { fits .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
    python=$(find_python)
    "$python" -c 'import ensurepip' 2>/dev/null || install_system_package python3-venv
    "$python" -m venv --clear .venv
fi

if ! command -v chromium >/dev/null; then
    install_system_package chromium || echo "warning: without it the tests of pages in a browser are skipped" >&2
fi

if ! command -v tmux >/dev/null; then
    install_system_package tmux || echo "warning: without it the tests of programs in a terminal are skipped" >&2
fi

if ! { [ -x .venv/bin/prometheus ] && [ -x .venv/bin/promtool ] && [ -x .venv/bin/prometheus-node-exporter ]; }; then
    { [ "$(id -u)" != 0 ] || apt-get update -qq; } && take_programs prometheus ./usr/bin/prom{etheus,tool} \
        && take_programs prometheus-node-exporter ./usr/bin/prometheus-node-exporter \
        || echo "warning: without Prometheus of Debian the tests with a real one are skipped" >&2
fi

editables=()
for file in plugins/*/pyproject.toml; do
    editables+=(-e "${file%/*}")
done

# The build back end comes first, so that the editable installs need no download of their own.
pip() { .venv/bin/python -m pip --disable-pip-version-check "$1" -qq --constraint .ci/constraints.txt "${@:2}"; }
pip install hatchling editables
pip install --no-build-isolation --requirement .ci/requirements.txt -e '.[cmdorc]' "${editables[@]}"
