"""Writes the schemas beside this file anew, from packages that carry the published ones.

    python -m venv /somewhere && /somewhere/bin/pip install kubernetes-validate \
        kubeflow-trainer-api==2.3.0 kubeflow-training==1.9.4 \
        cloudcoil-models-prometheus-operator==0.80.1.0
    /somewhere/bin/python tests/unit/k8s/schemas/vendor.py

What stays: names of fields, types, which ones are required, patterns, and that nothing else may be
there. What goes: descriptions, status, and all of Kubernetes itself (pods, jobs, metadata), which
becomes a reference to the definitions of kubernetes-validate.
"""

from __future__ import annotations

import json
import re
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import kubernetes_validate

FOLDER = Path(__file__).parent
NOISE = {"title", "description", "default", "discriminator"}
SIMPLE = {"str": "string", "int": "integer", "bool": "boolean", "float": "number"}
_BASE = Path(kubernetes_validate.__file__).with_name("kubernetes-json-schema")
_NAMES = json.loads((_BASE / "v1.37.0-local-strict" / "_definitions.json").read_text())["$defs"]
_KUBERNETES = {re.sub(r"\W", "", name).lower(): name for name in _NAMES}
_CORE = ("io.k8s.api.core.v1.", "io.k8s.apimachinery.pkg.apis.meta.v1.")
_SHORT = {f"V1{n.rsplit('.', 1)[1]}": n for n in _NAMES if n.startswith(_CORE)}


def kubernetes(name):
    """Returns the reference for a type of Kubernetes itself, or None."""
    found = _KUBERNETES.get(name.lower()) or _SHORT.get(name)
    if name == "ObjectMeta":
        found = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    return (
        {"$ref": f"https://kubernetes.io/api/_definitions.json#/$defs/{found}"} if found else None
    )


def clean(schema):
    """Returns a schema of pydantic's without what is of no use here."""
    if isinstance(schema, list):
        return [clean(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return kubernetes(name) or {"$ref": f"#/$defs/{name}"}
    found = {}
    for key, value in schema.items():
        if key == "properties":
            found[key] = {name: clean(part) for name, part in value.items()}
        elif key not in NOISE:
            found[key] = clean(value)
    choices = [choice for choice in found.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del found["anyOf"]
        found |= choices[0]
    if "properties" in found:
        found["additionalProperties"] = False
    return found


def of_pydantic(module, kinds):
    """Returns the definitions of some kinds, and of all that they contain."""
    found = {}
    for kind in kinds.values():
        schema = getattr(module, kind).model_json_schema(by_alias=True)
        parts = schema.pop("$defs") | {kind: schema}
        found |= {name: clean(part) for name, part in parts.items() if not kubernetes(name)}
    return found


def of_openapi(module, kinds):
    """The same for models of the older generator, which list their fields in two tables."""
    found, left = {}, list(kinds.values())
    while left:
        name = left.pop()
        model = getattr(module, name)
        fields = {}
        for attribute, text in model.openapi_types.items():
            fields[model.attribute_map[attribute]] = _type(text)
            inner = re.sub(r"^dict\(str, |^list\[|[)\]]$", "", text)
            if hasattr(module, inner) and not kubernetes(inner) and inner not in found:
                left.append(inner)
        found[name] = {"properties": fields, "type": "object", "additionalProperties": False}
    return found


def _type(text):
    if text.startswith("dict(str, "):
        return {"type": "object", "additionalProperties": _type(text[10:-1])}
    if text.startswith("list["):
        return {"type": "array", "items": _type(text[5:-1])}
    if text in SIMPLE:
        return {"type": SIMPLE[text]}
    if text == "Quantity":
        return {"type": ["string", "number"]}
    return kubernetes(text) or {"$ref": f"#/$defs/{text}"}


def write(name, package, licence, kinds, make, module):
    """Writes one file."""
    definitions = make(import_module(module), kinds)
    for kind, definition in kinds.items():
        api_version, _, short = kind.rpartition("/")
        fields = definitions[definition]["properties"]
        fields.pop("status", None)
        fields["apiVersion"], fields["kind"] = {"const": api_version}, {"const": short}
        definitions[definition]["required"] = ["apiVersion", "kind", "metadata", "spec"]
    head = {
        "$comment": f"Made by vendor.py from {package} {version(package)}, PyPI, {licence}.",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://distckpt/{name}.json",
        "kinds": kinds,
    }
    # A definition a line.
    needed = sorted(_reached(definitions, kinds))
    lines = ",\n".join(f'  "{one}": {json.dumps(definitions[one])}' for one in needed)
    text = json.dumps(head, indent=1).removesuffix("\n}")
    (FOLDER / f"{name}.json").write_text(f'{text},\n "$defs": {{\n{lines}\n }}\n}}\n')


def _reached(definitions, kinds):
    """Returns the names of the definitions that the kinds need."""
    found, left = set(), list(kinds.values())
    while left:
        name = left.pop()
        found.add(name)
        needed = re.findall(r'"#/\$defs/(\w+)"', json.dumps(definitions[name]))
        left += set(needed) - found
    return found


def main():
    """Writes all."""
    trainer = {
        f"trainer.kubeflow.org/v1alpha1/{kind}": f"TrainerV1alpha1{kind}"
        for kind in ("TrainJob", "TrainingRuntime", "ClusterTrainingRuntime")
    }
    trainer["jobset.x-k8s.io/v1alpha2/JobSet"] = "JobsetV1alpha2JobSet"
    write(
        *("trainer", "kubeflow-trainer-api", "Apache-2.0", trainer, of_pydantic),
        "kubeflow_trainer_api.models",
    )
    write(
        *("training_operator", "kubeflow-training", "Apache-2.0"),
        *({"kubeflow.org/v1/TFJob": "KubeflowOrgV1TFJob"}, of_openapi),
        "kubeflow.training.models",
    )
    monitoring = {
        f"monitoring.coreos.com/v1/{kind}": kind for kind in ("PodMonitor", "PrometheusRule")
    }
    write(
        *("prometheus_operator", "cloudcoil.models.prometheus_operator", "Apache-2.0"),
        *(monitoring, of_pydantic, "cloudcoil.models.prometheus_operator.v1"),
    )


if __name__ == "__main__":
    main()
