"""Alerts fire when they should and only then, by Prometheus' own unit tests."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_kit import program, rules_text

TESTS = Path(__file__).with_name("alert_tests.yaml")
RULES = [rule for group in yaml.safe_load(rules_text())["groups"] for rule in group["rules"]]
CASES = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test["alert_rule_test"]]


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "rules.yaml").write_text(rules_text())
    (folder / "tests.yaml").write_text(TESTS.read_text())
    return subprocess.run(
        [program("promtool"), *arguments], cwd=folder, check=False, capture_output=True, text=True
    )


def test_the_rules_are_rules(tmp_path: Path) -> None:
    """Prometheus parses them."""
    done = promtool(tmp_path, "check", "rules", "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def test_the_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Each series of alert_tests.yaml gives just the alerts written there, texts included."""
    done = promtool(tmp_path, "test", "rules", "tests.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [rule["alert"] for rule in RULES])
def test_every_alert_is_seen_firing_and_quiet(name: str) -> None:
    """A rule that cannot fire, or that always does, would pass one of the two."""
    cases = [case for case in CASES if case["alertname"] == name]
    assert any(case["exp_alerts"] for case in cases), f"no test sees {name} fire"
    assert any(not case["exp_alerts"] for case in cases), f"no test sees {name} quiet"


def test_a_broken_rule_would_be_noticed(tmp_path: Path) -> None:
    """The tests fail where a threshold moves."""
    promtool(tmp_path, "--version")
    rules = tmp_path / "rules.yaml"
    rules.write_text(rules.read_text().replace("> 0.95", "> 0.995"))
    done = subprocess.run(
        [program("promtool"), "test", "rules", "tests.yaml"], cwd=tmp_path, check=False, capture_output=True
    )
    assert done.returncode != 0


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    """A severity, one sentence, and where to look; no word of the chart is left over."""
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"].endswith(".")
    assert len(rule["annotations"]["description"]) > 30
    assert not re.search(r"@\w+@", str(rule))
