#!/usr/bin/env bash
# The first thing to run. Sets .venv up, trains on two workers, kills one, and sees it resume.
#
#     launch/quickstart.sh [--steps N] [--directory NEW]
#
# Needs Python 3.10 to 3.13 (found by itself; or set PYTHON) and, the first time, the network. What
# it runs: launch/quickstart/run.py. Exit code: 0 if all went as it should.
set -euo pipefail
unset PYTHONPATH PYTHONHOME # what counts is what .venv has

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
"$here/setup_venv.sh" quickstart
exec "$here/../.venv/bin/python" "$here/quickstart/run.py" "$@"
