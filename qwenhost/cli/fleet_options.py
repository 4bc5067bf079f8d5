"""Options of a fleet, and the small languages some of them speak."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, get_args

import click

from qwenhost.cli.ranges import FloatRange
from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.facts import Slo
    from qwenhost.simulate.fleet_config import Autoscale, Hours, Policy, Range, Spot

F = TypeVar("F", bound="Callable[..., Any]")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ROUTINGS = ("least-load", "round-robin", "prefix-aware", "session-sticky")
_ABOVE_ZERO = FloatRange(0, min_open=True)
_OPTIONS = (
    click.option(
        "--slo", is_flag=False, flag_value="", metavar="[LIMITS]",
        help="Alone: find the highest rate of one replica. With a fleet: judge it. LIMITS in ms replace the "
        "workload's, e.g. ttft=2000,tpot=50,e2e=30000,p=95.",
    ),
    click.option("--replicas", "fleet_replicas", metavar="N|MIN..MAX", help="Make a fleet of so many."),
    click.option(
        "--pool", "pools", multiple=True, metavar="PLAN|GPUS[,KEY=VALUE...]",
        help="A pool of a mixed fleet; repeatable. Keys: replicas, name, usd (per GPU hour), tier, spot, "
        "spare, start.",
    ),
    click.option(
        "--routing", type=click.Choice(ROUTINGS), default="least-load", show_default=True,
        help="How requests are spread.",
    ),
    click.option(
        "--autoscale", metavar="METRIC=N,...",
        help="As KEDA and the HPA do, by in-flight, waiting, running, kv or rate per replica; also poll, "
        "cooldown, sync, tolerance, up-window, down-window, up=N/S, up=P%/S, down=...",
    ),
    click.option(
        "--schedule", "schedules", multiple=True, metavar="[DAYS ]HH:MM-HH:MM=N|MIN..MAX",
        help='Replicas in some hours, e.g. "mon-fri 08:00-20:00=4..8"; repeatable, the last that holds wins.',
    ),
    click.option("--spare", type=click.IntRange(0), default=0, help="Replicas above what is needed (N+1)."),
    click.option("--fail-mtbf", type=_ABOVE_ZERO, metavar="HOURS", help="Let replicas fail, mean time."),
    click.option("--fail-repair", type=FloatRange(0), default=0.0, metavar="S",
                 help="Repair before a failed replica's warm start."),
    click.option("--spot", metavar="PER_DAY[/NOTICE_S]", help="Replicas are withdrawn so often."),
    click.option("--start-up", metavar="cold|warm|S", default="cold", show_default=True,
                 help="How added replicas start: computed from the plan, or seconds."),
    click.option("--timeout", "timeout_s", type=_ABOVE_ZERO, default=600.0, show_default=True, metavar="S",
                 help="A client's patience."),
    click.option("--max-outstanding", type=click.IntRange(1), help="429 above so many on every replica."),
    click.option("--days", type=_ABOVE_ZERO, help="Follow the workload's day so long; --rate is its mean."),
    click.option("--mean-over-peak", type=FloatRange(0.02, 1), help="Of the day's curve; 1 is flat."),
    click.option("--peak-hour", type=FloatRange(0, 24), default=14.0, show_default=True,
                 help="When the day's demand peaks."),
    click.option("--weekend", type=FloatRange(0), default=1.0, show_default=True,
                 help="Saturday's and Sunday's demand as a share of a weekday's."),
    click.option("--find-fleet", is_flag=True, help="Search the cheapest fleet that keeps the SLO."),
    click.option("--html", type=click.Path(path_type=Path), help="File for a page of plots."),
    click.option("--save", type=click.Path(path_type=Path), help="File for the fleet's run (JSON)."),
)  # fmt: skip


def fleet_options(function: F) -> F:
    """Add the options."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


class PoolText(NamedTuple):
    """``--pool`` taken apart."""

    what: str
    values: dict[str, str]


def parse_range(text: str, flag: str) -> Range:
    """``4`` or ``1..8``."""
    from qwenhost.simulate.fleet_config import Range

    found = re.fullmatch(r"(\d{1,4})(?:\.\.(\d{1,4}))?", text.strip())
    low = int(found[1]) if found else 0
    high = int(found[2] or low) if found else -1
    if high < low or high < 1:
        raise BadInputError(f"{flag} {text!r}: no number of replicas", remedy="Write 4 or 1..8.")
    return Range(low=low, high=high)


def parse_slo(text: str, own: Slo) -> Slo:
    """Limits in ms and the percentile of requests that keep all; empty takes the workload's."""
    from qwenhost.facts import Slo

    if not text:
        return own
    names = {"ttft": "ttft_ms", "tpot": "tpot_ms", "e2e": "e2e_ms", "p": "percentile"}
    given = {names.get(key, ""): value for key, value in _numbers(text, "--slo").items()}
    if "" in given or set(given) <= {"percentile"} or not 0 < given.get("percentile", 90.0) < 100:
        raise BadInputError(
            f"--slo {text!r}: expected limits in ms and a percentile below 100",
            remedy="Write --slo ttft=2000,tpot=50,p=95; leave limits out that do not matter.",
        )
    return Slo(**{"percentile": own.percentile, **given})


def parse_autoscale(text: str) -> Autoscale:
    """Triggers and the rules of both controllers."""
    from qwenhost.simulate.fleet_config import SCALE_DOWN, SCALE_UP, Autoscale, Metric, ScalingRules, Trigger

    times = {
        "poll": "polling_interval_s",
        "cooldown": "cooldown_s",
        "sync": "sync_s",
        "tolerance": "tolerance",
    }
    triggers, changes = [], cast("dict[str, Any]", {})
    windows = {"up": SCALE_UP.window_s, "down": SCALE_DOWN.window_s}
    policies: dict[str, list[Policy]] = {"up": [], "down": []}
    for key, value in _pairs(text, "--autoscale"):
        if key in policies:
            policies[key].append(_policy(value))
            continue
        number = _number(value, f"--autoscale {key}", least=0.0)
        if key in get_args(Metric) and number > 0:
            triggers.append(Trigger(metric=cast("Metric", key), target=number))
        elif key in times and (number > 0 or key in ("cooldown", "tolerance")):
            changes[times[key]] = number
        elif key.removesuffix("-window") in windows and key.endswith("-window"):
            windows[key.removesuffix("-window")] = number
        else:
            raise BadInputError(
                f"--autoscale {key}={value}: not understood",
                remedy=f"Metrics above 0: {', '.join(get_args(Metric))}. Also {', '.join(times)}, up-window, "
                "down-window, up=4/15, down=10%/60.",
            )
    if not triggers:
        raise BadInputError(f"--autoscale {text!r}: no metric", remedy="Write --autoscale in-flight=32.")
    return Autoscale(
        triggers=tuple(triggers),
        up=ScalingRules(window_s=windows["up"], policies=tuple(policies["up"]) or SCALE_UP.policies),
        down=ScalingRules(window_s=windows["down"], policies=tuple(policies["down"]) or SCALE_DOWN.policies),
        **changes,
    )


def parse_spot(text: str, notice_s: float) -> Spot:
    """Interruptions of a replica per day, and the notice."""
    from qwenhost.simulate.fleet_config import Spot

    rate, _, notice = text.partition("/")
    return Spot(
        interruptions_per_day=_number(rate, "--spot", least=0.0),
        notice_s=_number(notice, "--spot notice", least=0.0) if notice else notice_s,
    )


def parse_hours(text: str) -> Hours:
    """``mon-fri 08:00-20:00=4..8``."""
    from qwenhost.simulate.fleet_config import Hours

    found = re.fullmatch(r"(?:([a-z,-]+)\s+)?(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})=(\S+)", text.strip().lower())
    if found:
        days = _days(found[1]) if found[1] else tuple(range(7))
        since, until = (int(found[i]) * 3600 + int(found[i + 1]) * 60 for i in (2, 4))
        if days and max(since, until) <= 86_400 and since != until:
            replicas = parse_range(found[6], "--schedule")
            return Hours(days=days, from_s=float(since), to_s=float(until % 86_400), replicas=replicas)
    raise BadInputError(
        f"--schedule {text!r}: not understood",
        remedy='Write for example --schedule "mon-fri 08:00-20:00=4..8" or --schedule 22:00-06:00=1.',
    )


def parse_pool(text: str) -> PoolText:
    """``plan.json,replicas=1..4,tier=spot``."""
    what, *rest = text.split(",")
    values = dict(_pairs(",".join(rest), "--pool")) if rest else {}
    known = ("replicas", "name", "usd", "tier", "spot", "spare", "start")
    unknown = [key for key in values if key not in known]
    if unknown or not what:
        raise BadInputError(
            f"--pool {text!r}: {'no key ' + unknown[0] if unknown else 'no plan and no GPUs'}",
            remedy=f"Write --pool plan.json,replicas=1..4 or --pool 2xH200,tier=spot. "
            f"Keys: {', '.join(known)}.",
        )
    return PoolText(what, values)


def _days(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last and last not in DAYS):
            return ()
        start, end = DAYS.index(first), DAYS.index(last or first)
        found |= {day % 7 for day in range(start, end + 1 if end >= start else end + 8)}
    return tuple(sorted(found))


def _policy(text: str) -> Policy:
    from qwenhost.simulate.fleet_config import Policy

    found = re.fullmatch(r"(\d{1,5})(%?)/(\d{1,5})", text)
    if found is None or int(found[1]) < 1 or int(found[3]) < 1:
        raise BadInputError(
            f"--autoscale: policy {text!r}", remedy="Write up=4/15 (pods in seconds) or down=10%/60."
        )
    return Policy(kind="percent" if found[2] else "pods", value=int(found[1]), period_s=float(found[3]))


def _pairs(text: str, flag: str) -> list[tuple[str, str]]:
    pairs = [
        (key.strip(), value.strip()) for key, _, value in (part.partition("=") for part in text.split(","))
    ]
    for key, value in pairs:
        if not key or not value:
            raise BadInputError(f"{flag} {text!r}: expected KEY=VALUE,...", remedy="See --help for examples.")
    return pairs


def _numbers(text: str, flag: str) -> dict[str, float]:
    return {key: _number(value, f"{flag} {key}", above=0.0) for key, value in _pairs(text, flag)}


def _number(text: str, flag: str, *, least: float | None = None, above: float | None = None) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    good = (least is None or number >= least) and (above is None or number > above)
    if not good or number in (float("inf"), float("-inf")):
        bound = (
            f" above {above:g}" if above is not None else f" from {least:g} up" if least is not None else ""
        )
        raise BadInputError(f"{flag}: {text!r} is no number{bound}")
    return number
