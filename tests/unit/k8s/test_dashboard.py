"""The dashboard and the alerts ask for metrics that there are."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import subprocess
import time
import urllib.request

import portpicker
import pytest
import yaml

from distckpt.listeners import Prometheus

from ..kit import warm
from .conftest import tool

ROOT = pathlib.Path(__file__).resolve().parents[3]
ALERTS = ROOT / "k8s" / "components" / "monitoring" / "alerts.yaml"
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


# --- The alerts -----------------------------------------------------------------------------------

# Per alert, what makes it fire after an hour (and the labels that it then has), and what does not.
SERIES = {
    "CheckpointTooOld": ("distckpt_last_commit_timestamp_seconds", "0x240", "0+60x240"),
    "SavesFail": ('distckpt_saves_total{outcome="failed"}', "1x240", "0x240"),
    "CheckpointDamaged": ("distckpt_fallbacks_total", "1x240", "0x240"),
    "DirectoryTakenOver": ("distckpt_fenced", "1x240", "0x240"),
    "SavesStopTraining": ("distckpt_training_stopped_seconds_sum", "0+12x240", "0+3x240"),
}


def alerts():
    return yaml.safe_load(ALERTS.read_text())["spec"]["groups"]


def promtool(*arguments):
    """Returns what promtool prints."""
    command = [tool("promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_metric_that_an_alert_asks_for_is_exposed(tmp_path):
    rules = [rule for group in alerts() for rule in group["rules"]]
    for rule in rules:
        asked = set(re.findall(r"\bdistckpt_\w+", rule["expr"]))
        assert asked
        assert asked - exposed(tmp_path) == set()
    assert {rule["alert"] for rule in rules} == SERIES.keys()


@pytest.mark.parametrize("fires", [True, False])
@pytest.mark.parametrize("alert", SERIES)
def test_an_alert_fires_when_it_should_and_at_no_other_time(tmp_path, alert, fires):
    metric, bad, good = SERIES[alert]
    labels = {"namespace": "team", "directory": "/c/run"}
    name, _, more = metric.partition("{")
    pairs = ", ".join([*(f'{k}="{v}"' for k, v in labels.items()), *([more[:-1]] if more else [])])
    (rule,) = [r for group in alerts() for r in group["rules"] if r["alert"] == alert]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": alerts()}))
    expected = {"exp_labels": labels | rule["labels"], "exp_annotations": None}
    expected["exp_annotations"] = {
        key: text.replace("{{ $labels.directory }}", "/c/run")
        .replace("{{ $value | humanizeDuration }}", "2h 0m 0s")
        .replace("{{ $value | humanizePercentage }}", "20%")
        for key, text in rule["annotations"].items()
    }
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": f"{name}{{{pairs}}}", "values": bad if fires else good}
                ],
                "alert_rule_test": [
                    {"eval_time": "2h", "alertname": alert, "exp_alerts": [expected] * fires}
                ],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(test))
    assert "SUCCESS" in promtool("check", "rules", tmp_path / "rules.yaml")
    assert "SUCCESS" in promtool("test", "rules", path)


@pytest.mark.cluster
def test_the_program_of_the_manifests_serves_these_metrics(tmp_path):
    port = portpicker.pick_unused_port()
    program = [ROOT / "launch" / "digits.py", "--directory", tmp_path / "digits"]
    program += ["--steps", "100000", "--save-every", "5", "--metrics-port", port]
    text, end = "", time.monotonic() + 400
    log = str(tmp_path / "log")
    process = warm.start(program, os.environ, os.getcwd(), log, log)
    try:
        while "distckpt_last_commit_step{" not in text and time.monotonic() < end:
            assert process.exitcode is None
            with contextlib.suppress(OSError):
                text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
            time.sleep(0.2)
    finally:
        process.kill()
        process.join()
    assert re.search(r'^distckpt_last_commit_step\{.*worker="0".*\} \d', text, re.M)
