# Functions that find Pythons, for the scripts that make virtual environments. Source it.

# Prints "3.11" if $1 is a Python that TensorFlow has packages for; else says why not, and fails.
supported_version() {
    "$1" - <<'END'
import platform, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit("it is version %s" % version)
if platform.python_implementation() != "CPython" or sys.maxsize < 2**32:
    sys.exit("it is not a 64-bit CPython")
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit("it is a free-threaded build")
print(version)
END
}

can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Prints each supported Python that is found, the default one first: its version and its command.
supported_pythons() {
    local candidate version
    # The last are pyenv's, whose commands on the PATH refuse to work until a version is chosen.
    for candidate in python3 python3.12 python3.11 python3.13 python3.10 python \
        "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[0-3].*/bin/python; do
        version=$(supported_version "$candidate" 2>/dev/null) || continue
        echo "$version $candidate"
    done
}
