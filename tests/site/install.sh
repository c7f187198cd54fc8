#!/usr/bin/env bash
# Installs the browser of tests/site. For Debian and Ubuntu, as root; else it says so and changes nothing.
set -euo pipefail

for command in chromium chromium-browser google-chrome; do
    ! command -v "$command" >/dev/null || exit 0
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "install: tests/site needs Chromium; this is for root on Debian or Ubuntu only" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
