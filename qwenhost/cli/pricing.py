"""Wiring shared by the commands that deal in money."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

from click.core import ParameterSource

from qwenhost.cli import wiring
from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import click

    from qwenhost.cost import CompareOptions, Comparison, Extras, Ownership, Success
    from qwenhost.facts import Catalog, Workload
    from qwenhost.measurements import Measurements
    from qwenhost.plan import GpuPriceRef, Plan
    from qwenhost.token_counts import TokenCounts


def price_day(options: dict[str, Any]) -> dt.date:
    """``--as-of``, else today."""
    given = options.get("as_of")
    return given.date() if given else dt.datetime.now(tz=dt.UTC).date()


def plan_and_workload(
    ctx: click.Context, known: Catalog, plan_file: Path | None, options: dict[str, Any]
) -> tuple[Plan, Workload]:
    """The saved plan and its workload, or a new plan; what is asked of the workload wins over the plan's."""
    if plan_file is None:
        plan = wiring.make_plan(known, options)
        return plan, plan.inputs.workload_detail
    from qwenhost.cli.plan_file import LOADED, saved_plan
    from qwenhost.cli.simulation_setup import workload_of

    # Only a run made now has a load and is judged by a limit.
    idle = () if options.get("engine") else LOADED | {"slo_ttft_ms", "slo_tpot_ms"}
    plan = saved_plan(plan_file, also=idle)
    named = options.get("usage_file") or _asked(ctx, "workload")
    return plan, workload_of(known, plan, options if named else {**options, "workload": None})


def with_trace(known: Catalog, file: Path, options: dict[str, Any]) -> Catalog:
    """The catalog with a recorded trace as one more workload; the options then ask for it, and its volume."""
    import msgspec

    from qwenhost.cost import load_trace, requests_per_day, workload_of_trace

    trace = load_trace(file)
    base = wiring.workload(known, options)
    made = workload_of_trace(trace, base, name=file.stem, as_of=price_day(options))
    options["workload"] = made.id
    options["requests_per_day"] = options["requests_per_day"] or requests_per_day(trace)
    return msgspec.structs.replace(known, workloads={**known.workloads, made.id: made})


def extras(options: dict[str, Any]) -> Extras:
    """Tools, pictures and searches of every request.

    Raises:
        BadInputError: a picture's size is none.
    """
    from qwenhost.cost import Extras

    sizes = []
    for text in options["images"]:
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text.strip().lower())
        if match is None:
            raise BadInputError(
                f"--image {text!r}: not a size in pixels", remedy="Write it as --image 1920x1080."
            )
        sizes.append((int(match[1]), int(match[2])))
    return Extras(tools=options["tools"], images=tuple(sizes), web_searches=options["web_searches"])


def with_pictures(known: Catalog, options: dict[str, Any], *, file: Path | None = None) -> Catalog:
    """The catalog in which the workload asked for has the pictures of ``--image``, for plan and prices.

    Args:
        known: the catalog.
        options: of the command line; they then ask for that workload.
        file: a plan or recorded usage, which has sizes of its own.

    Raises:
        BadInputError: pictures beside such a file.
    """
    import msgspec

    from qwenhost.cost import with_images

    sizes = extras(options).images
    if not sizes:
        return known
    if file is not None:
        raise BadInputError(
            "--image changes what is planned for: it goes with neither --plan nor --usage",
            remedy="Leave it out, or leave the file out.",
        )
    made = with_images(wiring.workload(known, options), sizes)
    options |= {"workload": made.id, "input_tokens": None, "output_tokens": None, "prefix_hit": None}
    return msgspec.structs.replace(known, workloads={**known.workloads, made.id: made})


def compare_options(
    ctx: click.Context, known: Catalog, plan: Plan, options: dict[str, Any]
) -> CompareOptions:
    """The command line as the comparison takes it."""
    from qwenhost.cost import CompareOptions

    asked = ("requests_per_day", "cache", "batch", "residency", "staff_fte", "spare_nodes", "mean_over_peak")
    return CompareOptions(
        as_of=price_day(options),
        baselines=options["baselines"],
        gpu_price=_rent(ctx, known, plan, options),
        token_ratio=options["token_ratio"],
        token_counts=_token_counts(options),
        output_ratio=options["output_ratio"],
        own=_ownership(options),
        success=_success(options),
        extras=extras(options),
        **{name: options[name] for name in asked},
    )


def make_comparison(
    ctx: click.Context,
    known: Catalog,
    *,
    plan: Plan,
    workload: Workload,
    runs: Sequence[Measurements],
    options: dict[str, Any],
) -> Comparison:
    """Both sides priced by the run that carried most, stamped with the present time."""
    from qwenhost.cost import best_run, compare

    return compare(
        known,
        workload,
        plan,
        best_run(runs) if runs else None,
        options=compare_options(ctx, known, plan, options),
        generated_at=dt.datetime.now(tz=dt.UTC).replace(microsecond=0),
        runs=runs,
    )


def side_by_side(
    ctx: click.Context,
    known: Catalog,
    names: Sequence[str],
    options: dict[str, Any],
    *,
    single: bool,
    as_json: bool,
) -> None:
    """Several presets on the same GPUs, predicted, in one table.

    Raises:
        BadInputError: beside an option that belongs to one comparison.
    """
    from qwenhost.cli.output import console, write_json
    from qwenhost.report import side_by_side as table

    if single or _asked(ctx, "workload"):
        raise BadInputError(
            "--workloads predicts several presets: no plan, run, engine or file goes with it",
            remedy="Leave the others out, or compare one workload at a time and use qwenhost report A B.",
        )
    rows = {}
    for name in names:
        own = {**options, "workload": name.strip()}
        pictured = with_pictures(known, own)
        plan = wiring.make_plan(pictured, own)
        load = plan.inputs.workload_detail
        rows[load.id] = make_comparison(ctx, known, plan=plan, workload=load, runs=(), options=own)
    write_json(rows) if as_json else console().print(table(rows))


def deliver(
    comparison: Comparison,
    *,
    save: Path | None,
    html: Path | None,
    as_json: bool,
    csv_dir: Path | None = None,
) -> None:
    """Write the files asked for, then print for a program or for people."""
    from qwenhost.cli.output import console, make_folder, require_folders, say, write_json
    from qwenhost.cost import comparison_to_json
    from qwenhost.files import write_atomically

    # All of them or none: what cannot be written is told before the first is.
    require_folders({"--save": save, "--html": html})
    if csv_dir:
        make_folder(csv_dir, option="--csv")
    if save:
        write_atomically(save, comparison_to_json(comparison))
        say(f"Comparison: {save}")
    if html:
        from qwenhost.report import html as to_html

        write_atomically(html, to_html(comparison))
        say(f"Report: {html}")
    if csv_dir:
        _write_csv(comparison, csv_dir)
    if as_json:
        write_json(comparison)
        return
    from qwenhost.report import terminal

    out = console()
    for part in terminal(comparison, width=out.width):
        out.print(part)


def _write_csv(comparison: Comparison, folder: Path) -> None:
    from qwenhost.cli.output import say
    from qwenhost.files import write_atomically
    from qwenhost.report import csv_tables

    for name, text in csv_tables(comparison).items():
        write_atomically(folder / name, text)
    say(f"Tables: {folder}")


def _token_counts(options: dict[str, Any]) -> TokenCounts | None:
    """The counts of ``--token-counts``.

    Raises:
        BadInputError: beside ``--token-ratio``, or not such a file.
    """
    from qwenhost.token_counts import load_token_counts

    path = options["token_counts_file"]
    if path is None:
        return None
    if options["token_ratio"] is not None:
        raise BadInputError(
            "--token-ratio and --token-counts exclude each other", remedy="Leave one of them out."
        )
    return load_token_counts(path)


def _rent(ctx: click.Context, known: Catalog, plan: Plan, options: dict[str, Any]) -> GpuPriceRef | None:
    """Another rent than the plan's, where one was asked for or the plan has none."""
    if plan.inputs.gpu_price is None or _asked(ctx, "gpu_price", "gpu_tier", "gpu_provider"):
        return wiring.gpu_price(known, plan.inputs.node, options)
    return None


def _ownership(options: dict[str, Any]) -> Ownership | None:
    """Owned hardware where ``--own`` or one of its figures was given."""
    from qwenhost.cost import Ownership

    given = Ownership(
        purchase_usd=options["own_usd"],
        years=options["own_years"],
        kw=options["own_kw"],
        colo_usd_per_kw_month=options["colo_usd_per_kw_month"],
        electricity_usd_per_kwh=options["electricity_usd_per_kwh"],
        power_usage_effectiveness=options["pue"],
    )
    if not options["own"] and given != Ownership():
        raise BadInputError(
            "the figures of owned hardware need --own", remedy="Add --own, or leave them out to price rent."
        )
    return given if options["own"] else None


def _success(options: dict[str, Any]) -> Success | None:
    """``qwen=0.7,sonnet=0.8`` as rates.

    Raises:
        BadInputError: another name, or no rate above 0 and up to 1.
    """
    from qwenhost.cost import Success

    rates: dict[str, float] = {}
    for part in filter(None, (options["success"] or "").split(",")):
        name, _, text = part.partition("=")
        try:
            rate = float(text)
        except ValueError:
            rate = 0.0
        if name.strip() not in ("qwen", "sonnet", "baseline") or not 0 < rate <= 1:
            raise BadInputError(
                f"--success {part!r}: not a name and a rate", remedy="Write --success qwen=0.7,sonnet=0.8."
            )
        rates["qwen" if name.strip() == "qwen" else "baseline"] = rate
    if not rates and options["max_attempts"] is None:
        return None
    return Success(**rates, max_attempts=options["max_attempts"])


def _asked(ctx: click.Context, *names: str) -> bool:
    return any(ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in names)
