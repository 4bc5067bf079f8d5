"""Every example and every toggle is what Kubernetes 1.30 to 1.37 and the custom resources take."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

import pytest
from chart_kit import (
    CASES,
    CHART,
    CLUSTER_VERSIONS,
    NEEDS_VERSION,
    RefusedError,
    objects,
    rendered,
    sets,
    versions,
)
from schemas import NoSchemaError, problems

from qwenhost.kubernetes import check_manifests, read_manifests

if TYPE_CHECKING:
    from pathlib import Path

OUTSIDE = {"inferencepool-own-picker": "no Service 'mine' among these manifests"}
"""What a case refers to on purpose and does not bring."""


@pytest.mark.parametrize("version", CLUSTER_VERSIONS)
def test_strict_schemas_of_every_version(version: str) -> None:
    """No unknown field, no wrong type, no kind that the version lacks.

    Rendered once for all: the next test holds that manifests do not differ by version.
    """
    wrong, seen = [], set()
    for name, case in CASES.items():
        if version not in versions(name):
            continue
        for one in objects(case):
            text = json.dumps(one, sort_keys=True)
            if text not in seen:
                seen.add(text)
                wrong += [f"{name} {one['kind']}: {said}" for said in problems(one, version)]
    assert len(seen) > 100
    assert wrong == []


def test_only_refusals_depend_on_the_cluster() -> None:
    """No template but the one that refuses asks what cluster it is."""
    asking = {path.name for path in (CHART / "templates").rglob("*") if "Capabilities" in _text(path)}
    assert asking == {"_validate.tpl"}


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def test_schemas_refuse_what_a_server_refuses() -> None:
    """The check can fail: a typo, a wrong type, an unknown kind, in our own and in custom resources."""
    by_kind = {one["kind"]: one for one in objects(CASES["keda-multi-node"])}
    for kind, field in [
        ("Service", "selectors"),
        ("LeaderWorkerSet", "replica"),
        ("ScaledObject", "trigger"),
    ]:
        broken = copy.deepcopy(by_kind[kind])
        broken["spec"][field] = 1
        assert field in problems(broken, "1.36")[0]
    wrong_type = copy.deepcopy(by_kind["LeaderWorkerSet"])
    wrong_type["spec"]["leaderWorkerTemplate"]["size"] = "two"
    assert "two" in problems(wrong_type, "1.36")[0]
    with pytest.raises(NoSchemaError):
        problems({"apiVersion": "apps/v1", "kind": "Deploy"}, "1.36")


@pytest.mark.parametrize("name", CASES)
def test_manifests_fit_together(name: str) -> None:
    """`qwenhost k8s check` finds no error; a warning only of what the cluster has to bring."""
    manifests, twice = read_manifests(rendered(CASES[name]), name)
    findings = [*twice, *check_manifests(manifests)]
    errors = [one.message for one in findings if one.severity == "error"]
    assert [said for said in errors if said != OUTSIDE.get(name)] == []
    findings = [one for one in findings if one.severity == "warning"]
    outside = {one.rule for one in findings} - {"missing_object"}
    assert outside == set(), [f"{one.rule} {one.path}: {one.message}" for one in findings]


@pytest.mark.parametrize(("name", "first"), NEEDS_VERSION.items())
def test_older_clusters_are_refused_in_a_sentence(name: str, first: str) -> None:
    """A case that needs a newer cluster says which, and what the cluster is."""
    before = CLUSTER_VERSIONS[CLUSTER_VERSIONS.index(first) - 1]
    with pytest.raises(RefusedError, match=rf"needs? Kubernetes {first}, this is v{before}"):
        rendered(CASES[name], before)


def test_an_unsupported_cluster_is_refused() -> None:
    """The chart names the first version it is made for."""
    with pytest.raises(RefusedError, match=r"kubeVersion: >=1\.30"):
        rendered(sets(), "1.29")
