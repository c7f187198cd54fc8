#!/usr/bin/env bash
# Puts promtool, which tries out the alerts in k8s/ for the tests, into .venv/bin.
#
#     launch/get_promtool.sh
#
# It comes from Debian's package of Prometheus; nothing else of that package is installed.
# Exit code: 0, and .venv/bin/promtool is there; or 1, and the reason is on standard error.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ ! -x .venv/bin/promtool ] || exit 0
command -v dpkg >/dev/null || { echo "promtool: needs Debian or Ubuntu" >&2; exit 1; }
[ -d .venv/bin ] || { echo "promtool: run launch/setup_venv.sh first" >&2; exit 1; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
download() { (cd "$folder" && apt-get download -qq prometheus) >/dev/null 2>&1; }
download || { [ "$(id -u)" = 0 ] && apt-get update -qq && download; } ||
    { echo "promtool: apt-get could not download Debian's package prometheus" >&2; exit 1; }
dpkg -x "$folder"/prometheus_*.deb "$folder"
mv "$folder/usr/bin/promtool" .venv/bin/promtool
