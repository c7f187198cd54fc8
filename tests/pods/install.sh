#!/usr/bin/env bash
# Installs what tests/pods needs. For Debian and Ubuntu, as root; else it says so and changes nothing.
set -euo pipefail

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "install: tests/pods needs podman; this is for root on Debian or Ubuntu only" >&2
    exit 0
fi
for command in podman runc debootstrap netavark aardvark-dns nsenter ip; do
    command -v "$command" >/dev/null || [ -x "/usr/lib/podman/$command" ] || missing=1
done
[ -n "${missing:-}" ] || exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends podman runc conmon catatonit netavark aardvark-dns \
    iptables iproute2 util-linux debootstrap >/dev/null
