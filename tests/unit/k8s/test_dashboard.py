"""The dashboard asks for metrics that there are."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from distckpt.listeners import Prometheus

ROOT = pathlib.Path(__file__).resolve().parents[3]
DASHBOARD = json.loads((ROOT / "k8s" / "grafana" / "dashboard.json").read_text())

pytest.importorskip("prometheus_client")


def exposed(tmp_path):
    """The names that an endpoint shows, with those of histograms."""
    listener = Prometheus(textfile=tmp_path / "x.prom")
    found = set()
    for family in listener._registry.collect():
        found |= {family.name, f"{family.name}_total"}
        if family.type == "histogram":
            found |= {f"{family.name}_{suffix}" for suffix in ("bucket", "count", "sum")}
    return found


def test_every_metric_that_it_asks_for_is_exposed(tmp_path):
    asked = set(re.findall(r"\bdistckpt_\w+", json.dumps(DASHBOARD)))
    assert len(asked) > 12
    assert asked - exposed(tmp_path) == set()


def test_every_metric_that_is_exposed_is_documented_and_shown(tmp_path):
    documented = set(re.findall(r"`(distckpt_\w+)`", (ROOT / "docs" / "events.md").read_text()))
    assert documented <= exposed(tmp_path)
    shown = json.dumps(DASHBOARD)
    assert all(name in shown for name in documented)


def test_panels_do_not_overlap_and_have_ids_of_their_own():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
