"""Checks of the weights: room for them, and a hub that hands them out."""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

from qwenhost.launcher.checks import Check
from qwenhost.launcher.preflight_hub import MAX_CLOCK_ERROR_S, ask_hub
from qwenhost.units import format_gib

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwenhost.launcher.checks import Subject
    from qwenhost.node import Host


def check_weights_source(subject: Subject, host: Host, environ: Mapping[str, str]) -> Check:
    """Disk for weights that must be fetched; the hub itself is asked when they are."""
    if subject.repo_id is None:
        return Check(name="weights", status="ok", detail="nothing to fetch")
    if environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return Check(
            name="weights", status="skip", detail=f"{subject.repo_id}: HF_HUB_OFFLINE is set, cache only"
        )
    missing = max(0, subject.weights_bytes - _cached_bytes(Path(host.cache_path), subject.repo_id))
    if missing > host.cache_free_bytes:
        return Check(
            name="weights",
            status="fail",
            detail=f"{format_gib(missing)} to fetch, {format_gib(host.cache_free_bytes)} free at "
            f"{host.cache_path}",
            remedy="Free disk space, or set HF_HOME to a larger disk.",
        )
    detail = f"{subject.repo_id}: {format_gib(missing)} to fetch, {format_gib(host.cache_free_bytes)} free"
    return Check(name="weights", status="ok", detail=detail)


def check_hub(subject: Subject, host: Host, environ: Mapping[str, str]) -> list[Check]:
    """The hub, its access and the clock, where something must be fetched."""
    repo_id = subject.repo_id
    if repo_id is None or environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return []
    problem, remedy, ahead_s = ask_hub(repo_id, environ, now=dt.datetime.now(dt.UTC))
    cached = _cached_bytes(Path(host.cache_path), repo_id) >= subject.weights_bytes > 0
    if cached and problem:
        hub = Check(
            name="hub", status="warn", detail=f"{problem}; the weights are here already", remedy=remedy
        )
    else:
        found = problem or f"answers for {repo_id}"
        hub = Check(name="hub", status="fail" if problem else "ok", detail=found, remedy=remedy)
    if ahead_s is None:
        return [hub]
    wrong = abs(ahead_s) > MAX_CLOCK_ERROR_S
    clock = Check(
        name="clock",
        status="warn" if wrong else "ok",
        detail=f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the hub's",
        remedy="Set it: timedatectl set-ntp true" if wrong else "",
    )
    return [hub, clock]


def _cached_bytes(cache: Path, repo_id: str) -> int:
    blobs = cache / f"models--{repo_id.replace('/', '--')}" / "blobs"
    with contextlib.suppress(OSError):
        return sum(file.stat().st_size for file in blobs.iterdir())
    return 0
