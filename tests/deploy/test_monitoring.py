"""Dashboard and alert rules ask for nothing that a station does not say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from edge.metrics import metrics_text
from tests.edge.stations import StandInStation

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
RULES = yaml.safe_load((MONITORING / "alerts.yaml").read_text("utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((MONITORING / "grafana.json").read_text("utf-8"))

PROMISED = {
    *("StationDown", "ManyUnknown", "Backlog", "Slow", "DiskFillsUp", "Insecure"),
    *("SwapRolledBack", "StationStuck", "SelfTestFails"),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """Every sample of a station to which everything has happened: name → label → values."""
    station = StandInStation(
        tmp_path_factory.mktemp("state"), insecure=True, plain=("frames tcp://0.0.0.0:5555",)
    )
    station.run_a_while()
    station.health.count("refused_wrong_keys")
    samples: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(metrics_text(station.sources, "1").decode()):
        for sample in family.samples:
            labels = samples.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return samples


def wrong_in(expression: str, said: dict[str, dict[str, set[str]]]) -> list[str]:
    """Tell which metrics, labels and values of labels of an expression no station says."""
    wrong = []
    for name, _, matchers in re.findall(r"\b(dualbank_\w+)(\{([^}]*)\})?", expression):
        if name not in said:
            wrong.append(name)
            continue
        for label, sign, value in re.findall(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"', matchers):
            if label in ("instance", "job"):
                continue
            known = said[name].get(label, set())
            matched = {each for each in known if re.fullmatch(value, each)}
            if not matched or (sign == "=" and value not in known):
                wrong.append(f"{name}{{{label}{sign}{value!r}}}")
    return wrong


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [
        each["query"]["query"]
        for each in DASHBOARD["templating"]["list"]
        if each["type"] == "query"
    ]
    return [*(rule["expr"] for rule in RULES), *panels, *variables]


def test_everything_that_is_asked_for_is_said(said: dict[str, dict[str, set[str]]]) -> None:
    asked = expressions()

    assert [wrong for each in asked for wrong in wrong_in(each, said)] == []
    assert sum("dualbank_" in each for each in asked) >= len(asked) - 1, "all but `up`"


@pytest.mark.parametrize(
    "expression",
    ["rate(dualbank_received[5m])", 'dualbank_unknown_total{reason="x"}', 'dualbank_ready{a="b"}'],
)
def test_what_no_station_says_would_be_found(
    expression: str, said: dict[str, dict[str, set[str]]]
) -> None:
    assert len(wrong_in(expression, said)) == 1


def test_every_rule_says_how_bad_it_is_and_where_to_read_on() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert f"\n### {rule['alert']}\n" in runbook


def test_what_was_promised_has_a_rule() -> None:
    assert {rule["alert"] for rule in RULES} >= PROMISED


def test_every_rule_of_the_runbook_exists() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    section = runbook.split("\n## Alerts\n")[1].split("\n## ")[0]

    assert re.findall("^### (.*)$", section, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_panels_lie_beside_each_other() -> None:
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
