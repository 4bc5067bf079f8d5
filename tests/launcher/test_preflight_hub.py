"""The hub and the clock, before anything is fetched."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest
from hub_server import running_hub

from qwenhost.discovery import discover_host
from qwenhost.launcher.checks import Subject
from qwenhost.launcher.checks_weights import check_hub
from qwenhost.launcher.preflight_hub import ask_hub

SUBJECT = Subject(repo_id="owner/tiny", weights_bytes=10)


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "HF_TOKEN"), (403, "terms"), (404, "name"), (429, "Wait"), (503, "mirror")]
)
def test_a_hub_that_refuses_stops_the_start(status: int, remedy: str) -> None:
    """With what to do, before hours of anything else."""
    with running_hub({}) as hub:
        hub.status = status
        (check, _) = check_hub(SUBJECT, discover_host(environ={}), {"HF_ENDPOINT": hub.url})
    assert (check.name, check.status) == ("hub", "fail")
    assert f"answered {status}" in check.detail
    assert remedy in check.remedy


def test_a_hub_that_answers_and_a_clock_that_agrees() -> None:
    """The hub's Date header is this machine's own here."""
    with running_hub({}) as hub:
        checks = check_hub(SUBJECT, discover_host(environ={}), {"HF_ENDPOINT": hub.url})
    assert [(check.name, check.status) for check in checks] == [("hub", "ok"), ("clock", "ok")]


def test_a_clock_that_is_wrong_is_seen() -> None:
    """An hour ahead."""
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    with running_hub({}) as hub:
        _, _, ahead_s = ask_hub("owner/tiny", {"HF_ENDPOINT": hub.url}, now=later)
    assert ahead_s == pytest.approx(3600, abs=60)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "file:///etc", "hub"])
def test_no_hub_is_a_failed_check(endpoint: str) -> None:
    """Unless nothing must be fetched, or nothing may."""
    host = discover_host(environ={})
    (check,) = check_hub(SUBJECT, host, {"HF_ENDPOINT": endpoint})
    assert (check.name, check.status) == ("hub", "fail")
    assert check_hub(SUBJECT, host, {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "1"}) == []
    assert check_hub(msgspec.structs.replace(SUBJECT, repo_id=None), host, {}) == []
