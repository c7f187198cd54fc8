#!/usr/bin/env bash
# Makes the virtual environment .venv at the root of the repository, with distckpt installed in it.
#
#     launch/setup_venv.sh [EXTRA ...]     e.g.: launch/setup_venv.sh test
#
# Versions come from constraints.txt. When nothing has changed since the last time, it is done in a
# moment. EXTRAs add up: what an earlier call installed stays.
#
#   PYTHON   which Python to use; default: the first of 3.10 to 3.13 that is found
#
# Exit code: 0, and .venv/bin/python is ready; or 1, and the reason is on standard error.
set -euo pipefail
unset PYTHONPATH PYTHONHOME # they would mix other packages in
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0
trap 'exit 130' INT # also when the command that was interrupted ends as if nothing were

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/pythons.sh
root=$(pwd -P)
venv=$root/.venv
state=$venv/.distckpt # origin: made here; begun: installing; installed: fingerprint, then extras

say() { echo "setup: $*"; }
fail() {
    echo "setup: $*" >&2
    exit 1
}

no_ensurepip() {
    fail "$1 cannot make virtual environments: its module ensurepip is missing." \
        "On Debian and Ubuntu: sudo apt install python$(supported_version "$1")-venv" \
        "(or set PYTHON to another Python, 3.10 to 3.13)."
}

# Prints the line of $1 that says what is wrong: the last one of a traceback, else the first one, after
# which pyenv's commands give advice.
gist() {
    case $1 in
    Traceback*) echo "${1##*$'\n'}" ;;
    *) echo "${1%%$'\n'*}" ;;
    esac
}

# Prints the Python to use.
find_python() {
    local candidate reason found crippled=
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null || fail "PYTHON is '$PYTHON', which was not found."
        if ! reason=$(supported_version "$PYTHON" 2>&1 >/dev/null); then
            found=$(supported_pythons | awk '!seen[$1]++ { print $1 " is " $2 }' | paste -sd , - | sed 's/,/, /g')
            fail "PYTHON is '$PYTHON', which will not do: $(gist "$reason"). Needed: 3.10 to 3.13." \
                ${found:+"Found: $found."}
        fi
        can_make_venv "$PYTHON" || no_ensurepip "$PYTHON"
        echo "$PYTHON"
        return
    fi
    while read -r _ candidate; do
        if can_make_venv "$candidate"; then
            echo "$candidate"
            return
        fi
        crippled=${crippled:-$candidate}
    done < <(supported_pythons)
    [ -z "$crippled" ] || no_ensurepip "$crippled"
    fail "no Python 3.10 to 3.13 was found. Install one, or set PYTHON to where it is:" \
        "PYTHON=/path/to/python3.11 $0"
}

# Whether .venv can be used as it is.
usable() {
    local version wanted
    version=$(supported_version "$venv/bin/python" 2>/dev/null) || return 1
    "$venv/bin/python" -c 'import pip' 2>/dev/null || return 1
    [ ! -e "$state/begun" ] || return 1 # an installation was interrupted
    # Its scripts contain its path, so it cannot have been moved or copied.
    [ ! -e "$state/origin" ] || [ "$(cat "$state/origin")" = "$root" ] || return 1
    if [ -n "${PYTHON:-}" ]; then
        wanted=$(supported_version "$PYTHON" 2>/dev/null) || wanted="not supported"
        [ "$wanted" = "$version" ] || return 1
    fi
}

make_venv() {
    local python
    python=$(find_python)
    if [ -e "$venv" ]; then
        [ -e "$state/origin" ] || fail "$venv cannot be used, and was not made by this script." \
            "Move it away and try again."
        say "$venv is broken, was moved, or has another Python: making it again"
        rm -rf "$venv"
    fi
    say "making .venv with $python, Python $(supported_version "$python")"
    mkdir -p "$state"
    echo "$root" >"$state/origin"
    "$python" -m venv "$venv" || fail "'$python -m venv' has failed."
}

# Prints a fingerprint of all that is installed.
fingerprint() {
    find pyproject.toml constraints.txt launch/setup_venv.sh distckpt -type f \
        ! -name '*.pyc' -print | LC_ALL=C sort | tr '\n' '\0' | xargs -0 cksum | cksum
}

# Reads pip's output and shows what is large, as it is downloaded.
show_downloads() {
    local word file size unit
    while read -r word file size unit; do
        file=${file##*/}
        if [ "$word ${unit%%)*}" = "Downloading MB" ]; then
            say "  downloading ${file%-*-*-*} ${size#(} MB"
        fi
    done
}

pip_install() {
    "$venv/bin/python" -m pip install --no-input --progress-bar off --no-build-isolation \
        --constraint constraints.txt --no-compile "$@" | show_downloads && return
    rm -f "$state/begun" # pip came to an end, so .venv is in order
    fail "pip could not install what is needed; its message is above. It needs the network" \
        "(behind a proxy: HTTPS_PROXY; another package index: PIP_INDEX_URL)."
}

# Installs a copy of the sources, because building leaves files behind where it happens.
install() {
    local extras=$1
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    cp -R pyproject.toml README.md LICENSE distckpt "$copy"
    pip_install setuptools
    pip_install "$copy[tensorflow${extras:+,$extras}]"
    compile_all
}

# Does what pip would do on one processor, on all. Some packages hold files that no Python compiles.
compile_all() {
    "$venv/bin/python" -m compileall -q -j 0 "$venv"/lib/python*/site-packages >/dev/null 2>&1 || true
}

# One at a time, where there is flock. The lock is on the directory, so no file is left; it ends with
# this script. Where it does not work at all (1 means "taken"), this goes on without it: NFS.
if command -v flock >/dev/null && exec 9<"$root"; then
    locked=0
    flock -n 9 2>/dev/null || locked=$?
    if [ "$locked" = 1 ]; then
        say "waiting for another set-up to end"
        flock -w 1800 9 || fail "another set-up has been running for half an hour."
    fi
fi

usable || make_venv
now=$(fingerprint)
known="" had=""
if [ -e "$state/installed" ]; then
    { read -r known && read -r had; } <"$state/installed" || true
fi
extras=$(printf '%s\n' ${had//,/ } "$@" | LC_ALL=C sort -u | grep . | paste -sd , - || true)
if [ "$now" = "$known" ] && [ "$extras" = "$had" ]; then
    exit 0
fi
if [ -z "$known" ]; then
    say "installing TensorFlow and the rest (the first time about 700 MB to download) ..."
elif [ "$now" = "$known" ]; then
    say "installing also what is needed for: $* ..."
else
    say "something has changed: installing again ..."
fi
mkdir -p "$state"
rm -f "$state/installed"
touch "$state/begun"
began=$SECONDS
install "$extras"
printf '%s\n%s\n' "$now" "$extras" >"$state/installed"
rm "$state/begun"
say "installed in $((SECONDS - began)) s"
