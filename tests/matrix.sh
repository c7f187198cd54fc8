#!/usr/bin/env bash
# Tests distckpt with several versions of TensorFlow. For each version, this installs distckpt beside
# tensorflow-cpu in an environment of its own, and runs the tests that tests/matrix.txt lists.
# At the end it prints a table.
#
#     tests/matrix.sh                          all versions, 2.16 to 2.21
#     tests/matrix.sh 2.16 2.18                these versions
#     tests/matrix.sh --short [VERSION ...]    few tests; by default the oldest, a middle, the newest
#     tests/matrix.sh 2.16 -- -n 0 -k graph    arguments after -- go to pytest
#
# Each version needs about 250 MB of downloads and 1.5 GB on disk, in .matrix/, where a second run
# finds it. Each version runs on the first Python of its list below that is installed.
#
# Exit code: 0 if all tests have passed; 1 if a test has failed or a version could not be installed;
# 2 if an argument is wrong.
set -euo pipefail
unset PYTHONPATH PYTHONHOME # what counts is what the environment has
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0
trap 'exit 130' INT # also when the command that was interrupted ends as if nothing were

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/pythons.sh
versions=(2.16 2.17 2.18 2.19 2.20 2.21)
three=(2.16 2.18 2.21)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Prints the Pythons that have packages of TensorFlow $1. The first ones differ, to test all Pythons.
pythons_of() {
    case $1 in
    2.16) echo 3.10 3.11 3.12 ;;
    2.17 | 2.18) echo 3.11 3.12 3.10 ;;
    2.19) echo 3.12 3.11 3.10 ;;
    2.20 | 2.21) echo 3.13 3.12 3.11 3.10 ;;
    esac
}

say() { echo "matrix: $*"; }
complain() { echo "matrix: $*" >&2; }

# Prints the command of the best Python for TensorFlow $1.
python_for() {
    local wanted version command
    for wanted in $(pythons_of "$1"); do
        while read -r version command; do
            if [ "$version" = "$wanted" ] && can_make_venv "$command"; then
                echo "$command"
                return
            fi
        done <"$work/pythons"
    done
    complain "TensorFlow $1 needs one of Python $(pythons_of "$1"), and none was found."
    return 1
}

usable() { # venv, python
    [ -x "$1/bin/python" ] && [ ! -e "$1/unfinished" ] &&
        [ "$(supported_version "$1/bin/python" 2>&1)" = "$(supported_version "$2")" ]
}

# Prints the versions of pytest and what else the tests use, from constraints.txt.
tools() {
    grep -E '^(pytest|pytest-timeout|pytest-xdist|hypothesis|greenlet|build|setuptools|scikit-learn)==' constraints.txt
}

# Installs TensorFlow $1 and then distckpt, which must not bring another TensorFlow along.
install() {
    local version=$1 venv=.matrix/$1 python
    python=$(python_for "$version") || return
    if ! usable "$venv" "$python"; then
        rm -rf "$venv"
        mkdir -p .matrix
        "$python" -m venv "$venv" || return
    fi
    touch "$venv/unfinished"
    # Most modules are never imported; below, the import compiles those that are.
    local pip=("$venv/bin/python" -m pip install --quiet --no-input --progress-bar off --no-compile)
    "${pip[@]}" "tensorflow-cpu==$version.*" -r "$work/tools" || return
    # Its dependency is the package tensorflow.
    "${pip[@]}" --no-deps "tf-keras==$version.*" || return
    "${pip[@]}" --no-build-isolation "$work/sources" || return
    TF_CPP_MIN_LOG_LEVEL=3 "$venv/bin/python" - <<'END' || return
import importlib.metadata, sys
import distckpt.testing, keras, pytest, tensorflow
found = set(importlib.metadata.packages_distributions()["tensorflow"])
sys.exit(f"There is not one TensorFlow, but {found}." if len(found) != 1 else 0)
END
    rm "$venv/unfinished"
}

# Prints the row of TensorFlow $1, whose installation took $2 seconds; fails if a test has failed.
row() {
    ".matrix/$1/bin/python" - "$work/$1.xml" "$2" <<'END'
import importlib.metadata, platform, sys
import xml.etree.ElementTree as ElementTree

path, installing = sys.argv[1:]
packages = [importlib.metadata.version(name) for name in ("tensorflow-cpu", "protobuf", "numpy")]
packages.insert(1, platform.python_version())
suite = ElementTree.parse(path).getroot().find("testsuite").attrib
tests, failed, skipped = (
    sum(int(suite[key]) for key in keys)
    for keys in (["tests"], ["failures", "errors"], ["skipped"])
)
counts = [tests - failed - skipped, failed, skipped, installing, round(float(suite["time"]))]
print("|", " | ".join(map(str, packages + counts)), "|")
sys.exit(failed > 0 or tests == skipped)
END
}

empty_row() { echo "| $1 | $2 | | | | | | | |" >>"$work/table"; } # version, why

# Tests TensorFlow $1, and adds its row to the table.
examine() {
    local version=$1 began=$SECONDS installing
    say "installing TensorFlow $version ..."
    if ! install "$version"; then
        complain "TensorFlow $version could not be installed."
        empty_row "$version" "not installed"
        return 1
    fi
    installing=$((SECONDS - began))
    say "testing TensorFlow $version ..."
    ".matrix/$version/bin/pytest" -p no:cacheprovider -n "$processes" --dist loadgroup \
        --maxprocesses 8 --junit-xml "$work/$version.xml" -q "${tests[@]}" "${options[@]}" || true
    if [ ! -e "$work/$version.xml" ]; then
        empty_row "$version" "not tested"
        return 1
    fi
    row "$version" "$installing" >>"$work/table"
}

form=full chosen=() options=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' tests/matrix.sh
        exit
        ;;
    --short) form=short ;;
    --)
        shift
        options=("$@")
        break
        ;;
    *)
        if [[ " ${versions[*]} " != *" $1 "* ]]; then
            complain "'$1' is not one of the versions ${versions[*]}; see tests/matrix.sh --help"
            exit 2
        fi
        chosen+=("$1")
        ;;
    esac
    shift
done
[ "${#chosen[@]}" -gt 0 ] || if [ $form = short ]; then chosen=("${three[@]}"); else chosen=("${versions[@]}"); fi

supported_pythons >"$work/pythons"
tools >"$work/tools"
mkdir "$work/sources"
cp -R pyproject.toml README.md LICENSE distckpt "$work/sources"
processes=$(($(getconf _NPROCESSORS_ONLN) + 1))
tests=()
while read -r when name; do
    case $when in
    short) tests+=("tests/$name") ;;
    full) [ $form = short ] || tests+=("tests/$name") ;;
    esac
done <tests/matrix.txt

code=0
for version in "${chosen[@]}"; do
    examine "$version" || code=1
done
echo
echo "| TensorFlow | Python | protobuf | numpy | Passed | Failed | Skipped | Set-up, s | Tests, s |"
echo "|---|---|---|---|---|---|---|---|---|"
cat "$work/table"
exit $code
