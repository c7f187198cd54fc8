#!/usr/bin/env bash
# Sets .venv up and runs the tests, on the installed package. Arguments go to pytest:
#
#     tests/run.sh                            every promise once
#     tests/run.sh --all                      the long tests, too
#     tests/run.sh --long                     the long tests alone
#     tests/run.sh --long --part 1/3          every third of them, from the first
#     tests/run.sh tests/unit/core            those of one folder
#     tests/run.sh -m 'not cluster'           without real clusters
#
# One test more than there are processors runs at a time, as many only wait; -n 0 runs one by one.
# Needs Python 3.10 to 3.13 (found by itself; or set PYTHON). Exit code: pytest's.
set -euo pipefail
unset PYTHONPATH PYTHONHOME # what counts is what .venv has

cd "$(dirname "${BASH_SOURCE[0]}")/.."
launch/setup_venv.sh test
processes=$(($(getconf _NPROCESSORS_ONLN) + 1))
exec .venv/bin/pytest -n "$processes" --dist loadgroup --no-loadscope-reorder \
    --maxprocesses 8 "$@"
