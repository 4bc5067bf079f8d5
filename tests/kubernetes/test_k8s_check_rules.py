"""Each way in which manifests do not fit together is found where it stands, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from qwenhost.kubernetes import Finding, check_manifests, read_manifests
from qwenhost.kubernetes.check.bundle import matches, quantity
from qwenhost.kubernetes.check.devices import cel_problem

GOOD = Path(__file__).with_name("application.yaml").read_text()

BROKEN = yaml.safe_load(Path(__file__).with_name("broken.yaml").read_text())
ERRORS, WARNINGS = BROKEN["errors"], BROKEN["warnings"]


def findings(text: str) -> list[Finding]:
    manifests, twice = read_manifests(text, "app.yaml")
    return [*twice, *check_manifests(manifests)]


def broken(case: dict[str, str]) -> str:
    assert case["old"] in GOOD, f"the good application does not hold {case['old']!r}"
    return GOOD.replace(case["old"], case["new"], 1)


def test_the_good_application_has_no_findings() -> None:
    """Everything that the rules look at occurs in it and is right."""
    assert findings(GOOD) == []


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_is_found_where_it_stands(case: str) -> None:
    """One slip gives an error of its rule at its path."""
    one_of = ERRORS[case]
    found = findings(broken(one_of))
    assert (one_of["rule"], one_of["path"], "error") in [(one.rule, one.path, one.severity) for one in found]


@pytest.mark.parametrize("case", WARNINGS)
def test_what_may_work_is_a_warning(case: str) -> None:
    """One doubt gives a warning of its rule at its path."""
    one_of = WARNINGS[case]
    found = findings(broken(one_of))
    assert (one_of["rule"], one_of["path"], "warning") in [
        (one.rule, one.path, one.severity) for one in found
    ]


@pytest.mark.parametrize("case", ["GPU request", "target port", "route path", "long port name"])
def test_the_line_is_the_one_that_was_broken(case: str) -> None:
    """So that an editor can jump there."""
    text = broken(ERRORS[case])
    error = next(one for one in findings(text) if one.severity == "error")
    assert ERRORS[case]["new"] in text.splitlines()[error.line - 1]


def test_an_object_twice() -> None:
    """Two objects of one kind and name overwrite one another."""
    account = "\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: engine}\n"
    assert [one.rule for one in findings(GOOD + account)] == ["object_twice"]


def test_two_autoscalers_of_one_workload() -> None:
    """KEDA and an HPA of one's own fight over the replicas."""
    hpa = (
        "\n---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: engine}\n"
        "spec: {scaleTargetRef: {kind: Deployment, name: engine}, minReplicas: 1, maxReplicas: 2}\n"
    )
    assert [one.rule for one in findings(GOOD + hpa)] == ["scale_target"]


def test_a_liveness_probe_alone_kills_an_engine_that_loads() -> None:
    """Without a startup probe the liveness probe counts from the start."""
    start = GOOD.index("          startupProbe:")
    end = GOOD.index("          livenessProbe:")
    text = GOOD[:start] + GOOD[end:]
    without_budget = text.replace('      annotations: {qwenhost.io/startup-seconds: "1800"}\n', "")
    for found in (findings(text), findings(without_budget)):
        assert "startup_budget" in [one.rule for one in found]


def test_a_leader_and_its_workers_are_both_looked_at() -> None:
    """Both templates of a LeaderWorkerSet are pods, with the labels that their controller adds."""
    text = """
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: engine}
spec:
  leaderWorkerTemplate:
    size: 2
    leaderTemplate:
      metadata: {labels: {role: leader}}
      spec:
        containers: [{name: engine, image: a, args: ["$(LWS_GROUP_SIZE)", "$(OTHER)"]}]
    workerTemplate:
      spec:
        containers: [{name: Worker, image: a}]
---
apiVersion: v1
kind: Service
metadata: {name: engine}
spec:
  selector: {leaderworkerset.sigs.k8s.io/name: engine, role: leader}
  ports: [{port: 80}]
"""
    found = {(one.rule, one.path) for one in findings(text) if one.severity == "error"}
    assert found == {
        ("env_reference", "spec.leaderWorkerTemplate.leaderTemplate.spec.containers[0].args[1]"),
        ("container_name", "spec.leaderWorkerTemplate.workerTemplate.spec.containers[0].name"),
    }


@pytest.mark.parametrize("value", ["[]", "text", "5", "{a: [1]}", "[[x]]", "null"])
@pytest.mark.parametrize("key", ["containers", "volumes", "initContainers", "resourceClaims"])
def test_any_shape_is_read_without_a_traceback(key: str, value: str) -> None:
    """A value of the wrong type is a finding or nothing, never a crash."""
    text = f"kind: Pod\napiVersion: v1\nmetadata: {{name: x}}\nspec: {{{key}: {value}}}\n"
    findings(text)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("device.driver == 'gpu.nvidia.com'", None),
        ('device.attributes["gpu.nvidia.com"].type == "gpu" && (1 < 2 || !false)', None),
        ("device.capacity['gpu.nvidia.com'].memory.compareTo(quantity(\"79Gi\")) >= 0", None),
        ("device.driver == 'gpu.nvidia.com", "a quote is not closed"),
        ("device.capacity['gpu'].memory.compareTo(quantity('1Gi') >= 0", "'(' is not closed"),
        ("device.driver == 'x')", "')' closes nothing"),
        ("device.attributes['x'.type == 'gpu'", "'[' is not closed"),
        ("memory >= 79", "it says nothing about device.attributes"),
        ("", "it says nothing about device.attributes"),
        ("device.driver = 'x'", "CEL compares with =="),
        ("device.driver == 'x' & true", "joins with &&"),
        ("device.driver ==", "nothing on its right"),
    ],
)
def test_plain_slips_in_expressions(expression: str, problem: str | None) -> None:
    """What the server refuses for its form alone; strings are not looked into."""
    found = cel_problem(expression)
    assert (found is None) if problem is None else (found is not None and problem in found)


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", 2), ("500m", 0.5), ("16Gi", 16 * 2**30), ("1e3", 1000), ("1.5G", 1.5e9), (4, 4)],
)
def test_quantities(text: object, number: float) -> None:
    """As Kubernetes writes them."""
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["64GB", "", "two", True, None, ["1"]])
def test_what_is_no_quantity(text: object) -> None:
    """GB is a unit of ours and none of Kubernetes'."""
    assert quantity(text) is None


def test_expressions_of_selectors() -> None:
    """In, NotIn, Exists and DoesNotExist as Kubernetes has them; labels of a controller may be anything."""
    selector = read_manifests(
        "kind: X\nmatchExpressions:\n"
        "- {key: a, operator: In, values: [x, z]}\n- {key: b, operator: NotIn, values: [y]}\n"
        "- {key: c, operator: Exists}\n- {key: d, operator: DoesNotExist}\n",
        "x",
    )[0][0].root
    assert matches(selector, {"a": "x", "c": ""})
    assert matches(selector, {"a": None, "b": "z", "c": None})
    assert not matches(selector, {"a": "y", "c": ""})
    assert not matches(selector, {"a": "x", "b": "y", "c": ""})
    assert not matches(selector, {"a": "x"})
    assert not matches(selector, {"a": "x", "c": "", "d": ""})
