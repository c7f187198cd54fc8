#!/usr/bin/env bash
# Sets .venv up and runs all tests, on the installed package. Arguments go to pytest:
#
#     tests/run.sh                            everything
#     tests/run.sh tests/unit                 the fast ones
#     tests/run.sh -m 'not cluster'           without real clusters
#
# Needs Python 3.10 to 3.13 (found by itself; or set PYTHON). Exit code: pytest's.
set -euo pipefail
unset PYTHONPATH PYTHONHOME # what counts is what .venv has

cd "$(dirname "${BASH_SOURCE[0]}")/.."
launch/setup_venv.sh test
exec .venv/bin/pytest "$@"
