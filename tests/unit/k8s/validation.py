"""Checks an object against the published schema of its kind, to the last field.

For the kinds of Kubernetes itself, and for what other kinds take from it (pods, jobs, metadata),
the schemas are those of kubernetes-validate; for the others those in the folder schemas.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jsonschema
import kubernetes_validate
from referencing import Registry, Resource

VERSIONS = ("1.31", "1.34", "1.37")
_FOLDER = Path(__file__).parent / "schemas"
_KUBERNETES = Path(kubernetes_validate.__file__).with_name("kubernetes-json-schema")


@functools.cache
def _published():
    """Returns {kind, with its apiVersion: (id of the file, name of the definition)}; the files."""
    files = [json.loads(path.read_text()) for path in sorted(_FOLDER.glob("*.json"))]
    kinds = {kind: (file["$id"], name) for file in files for kind, name in file["kinds"].items()}
    return kinds, files


@functools.cache
def _registry(version):
    definitions = _KUBERNETES / f"v{version}.0-local-strict" / "_definitions.json"
    contents = [json.loads(definitions.read_text()), *_published()[1]]
    return [Resource.from_contents(content) for content in contents] @ Registry()


def validate(found, version):
    """Raises jsonschema.ValidationError if the object is not valid.

    Args:
      found: The object.
      version: That of Kubernetes.
    """
    place = _published()[0].get(f"{found['apiVersion']}/{found['kind']}")
    if place is None:
        kubernetes_validate.validate(found, version, strict=True)
    else:
        schema = {"$ref": f"{place[0]}#/$defs/{place[1]}"}
        jsonschema.Draft202012Validator(schema, registry=_registry(version)).validate(found)
