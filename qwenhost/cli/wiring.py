"""Where the peers meet: options to catalog, node, workload, plan. The only place that knows them all."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo, TokenStats
from qwenhost.node import load_node, match_gpu_spec, parse_gpus
from qwenhost.plan import GpuPriceRef, Pins, PlanRequest
from qwenhost.units import GIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    import click

    from qwenhost.facts import Catalog, Workload
    from qwenhost.node import Node
    from qwenhost.plan import Candidate, LoraOptions, Plan


def catalog(ctx: click.Context, *, use_cache: bool = True) -> Catalog:
    """Built-in profiles; over them the user's own, QWENHOST_PROFILES and --profiles, in that order."""
    from qwenhost.profiles import load_catalog

    return load_catalog(profile_folders(ctx), use_cache=use_cache)


def profile_folders(ctx: click.Context) -> list[Path]:
    """The user's own folders of profiles, later ones winning."""
    own = [user_profiles()] if user_profiles().is_dir() else []
    folders = own + [Path(p) for p in os.environ.get("QWENHOST_PROFILES", "").split(os.pathsep) if p]
    return folders + [Path(p) for p in (ctx.find_root().obj or {}).get("profiles", ())]


def user_profiles() -> Path:
    """``$XDG_CONFIG_HOME/qwenhost/profiles``, else under ``~/.config``: what this machine taught us."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME") or Path.home()) / ".config"
    return Path(base) / "qwenhost" / "profiles"


def node(known: Catalog, options: Mapping[str, Any]) -> Node:
    """The described node of ``--gpus``, one inspected elsewhere and kept in a file, or this machine's."""
    if options.get("gpus") is not None:
        if str(options["gpus"]).endswith(".json"):
            return _inspected(known, Path(options["gpus"]), options.get("interconnect"))
        return parse_gpus(options["gpus"], known.gpus, interconnect=options.get("interconnect"))
    if options.get("interconnect"):
        raise BadInputError(
            "--interconnect describes the GPUs of --gpus; this machine's links are read from its driver",
            remedy="Give --gpus too, or leave --interconnect out.",
        )
    from qwenhost.discovery import discover_node

    return discover_node(known.gpus)


def _inspected(known: Catalog, path: Path, interconnect: str | None) -> Node:
    """GPUs are matched anew: the catalog here may know others than the one they were inspected with."""
    if interconnect:
        raise BadInputError(
            f"--interconnect describes the GPUs of --gpus NxNAME; {path} says how its own are linked",
            remedy="Leave --interconnect out.",
        )
    found = load_node(path)
    if not found.gpus:
        reason = "; ".join(note.rstrip(".") for note in found.notes) or "there were none"
        raise BadInputError(
            f"--gpus {path}: a node without GPUs ({reason})",
            remedy="Inspect a machine that has some, or describe one: --gpus 2xH200.",
        )
    gpus = []
    for gpu in found.gpus:
        spec = match_gpu_spec(gpu.name, gpu.memory_total_bytes, gpu.compute_capability, known.gpus.values())
        gpus.append(msgspec.structs.replace(gpu, spec=spec.id if spec else None))
    return msgspec.structs.replace(found, gpus=tuple(gpus))


def workload(known: Catalog, options: Mapping[str, Any]) -> Workload:
    """The preset, with the sizes and limits given on the command line in place of its own.

    Raises:
        BadInputError: no such preset.
    """
    given = options.get("workload")
    name = "chat" if given is None else str(given)
    if name not in known.workloads:
        name = name.replace("-", "_")
    if name not in known.workloads:
        raise BadInputError(
            f"--workload {name!r}: no such preset",
            remedy=f"Choose one of: {', '.join(sorted(known.workloads))}.",
        )
    chosen = known.workloads[name]
    changes: dict[str, Any] = {}
    if options.get("input_tokens"):
        changes["input_tokens"] = TokenStats(mean=float(options["input_tokens"]))
    if options.get("output_tokens"):
        changes["output_tokens"] = TokenStats(mean=float(options["output_tokens"]))
    if changes:
        # The preset's other statistics belong to its own sizes; the published hit rate too.
        changes |= {
            "prefix_hit_5m": None, "prefix_hit_1h": None, "prefix_hit_unbounded": None,
            "image_tokens": 0.0, "synthetic": True,
        }  # fmt: skip
    if options.get("prefix_hit") is not None:
        hit = options["prefix_hit"]
        changes |= {"prefix_hit_5m": hit, "prefix_hit_1h": hit, "prefix_hit_unbounded": hit}
    slo = chosen.slo
    if options.get("slo_ttft_ms") or options.get("slo_tpot_ms"):
        changes["slo"] = Slo(
            ttft_ms=options.get("slo_ttft_ms") or slo.ttft_ms,
            tpot_ms=options.get("slo_tpot_ms") or slo.tpot_ms,
            e2e_ms=slo.e2e_ms,
            percentile=slo.percentile,
        )
    return msgspec.structs.replace(chosen, **changes) if changes else chosen


def pins(options: Mapping[str, Any]) -> Pins:
    """What the user fixed on the command line."""
    fixed = {name: options.get(name) for name in Pins.__struct_fields__ if name != "available_kv_bytes"}
    available = options.get("available_kv_gib")
    return Pins(**fixed, available_kv_bytes=None if available is None else int(available * GIB))


def gpu_price(known: Catalog, machine: Node, options: Mapping[str, Any]) -> GpuPriceRef | None:
    """The rent to price with: ``--gpu-price``, else the cheapest listed of the tier, else None.

    Raises:
        BadInputError: a provider or tier that lists no price for this GPU was asked for by name.
    """
    given = options.get("gpu_price")
    if given is not None:
        return GpuPriceRef(
            usd_per_gpu_hour=given, provider="given", tier="given", as_of="", source="--gpu-price"
        )
    tier = options.get("gpu_tier") or "on_demand"
    provider = options.get("gpu_provider")
    gpu = machine.gpus[0].spec if machine.gpus else None
    rows = [p for p in known.gpu_prices if p.gpu == gpu and p.min_gpus <= max(8, machine.gpu_count)]
    matching = [p for p in rows if p.tier == tier and provider in (None, p.provider)]
    if not matching:
        if provider or (rows and tier != "on_demand"):
            listed = ", ".join(sorted({f"{p.provider} ({p.tier})" for p in rows})) or "none"
            raise BadInputError(
                f"no {tier} price of {gpu} {'by ' + provider if provider else 'is listed'}",
                remedy=f"Listed: {listed}. Or give --gpu-price USD.",
            )
        return None
    best = min(matching, key=lambda p: (p.usd_per_gpu_hour, p.provider))
    return GpuPriceRef(
        usd_per_gpu_hour=best.usd_per_gpu_hour,
        provider=best.provider,
        tier=best.tier,
        as_of=best.source.as_of.isoformat(),
        source=best.source.where,
    )


def lora(options: Mapping[str, Any]) -> LoraOptions | None:
    """Adapters asked for; None without any option about them.

    Raises:
        BadInputError: not NAME=DIR, no such module, or an adapter vLLM would not load.
    """
    given = ("max_loras", "max_lora_rank", "lora_target_modules", "lora_modules")
    if not any(options.get(name) for name in given):
        return None
    from qwenhost.tensors import lora_options

    return lora_options(
        modules=options.get("lora_modules") or (),
        target_modules=options.get("lora_target_modules") or (),
        max_loras=options.get("max_loras"),
        max_lora_rank=options.get("max_lora_rank"),
    )


def plan_request(known: Catalog, options: Mapping[str, Any]) -> PlanRequest:
    """Everything the planner is asked, from a command's options."""
    machine = node(known, options)
    chosen = workload(known, options)
    extra = {name: options[name] for name in ("objective", "vllm_version") if options.get(name)}
    return PlanRequest(
        node=machine,
        workload=chosen,
        slo=chosen.slo,
        pins=pins(options),
        concurrency=options.get("concurrency"),
        rate=options.get("rate"),
        gpu_price=gpu_price(known, machine, options),
        lora=lora(options),
        **extra,
    )


def with_checkpoint_folder(known: Catalog, options: Mapping[str, Any]) -> tuple[Catalog, Mapping[str, Any]]:
    """Where ``--checkpoint`` is a folder: the catalog with its true tensors, and the id they have there.

    Raises:
        BadInputError: the folder is no checkpoint of this family, or is damaged.
    """
    ref = options.get("checkpoint")
    if ref is None or ref in known.checkpoints or not (ref.startswith((".", "/", "~")) or Path(ref).is_dir()):
        return known, options
    from qwenhost.tensors import import_checkpoint

    imported = import_checkpoint(ref, known, today=dt.datetime.now(dt.UTC).date())
    return imported.into(known), {**options, "checkpoint": imported.checkpoint.id}


def make_plan(known: Catalog, options: Mapping[str, Any]) -> Plan:
    """Plan and fill in every candidate's argv.

    Raises:
        InfeasibleError: nothing fits; carries the rejections.
    """
    from qwenhost.planner import make_plan as decide

    known, options = with_checkpoint_folder(known, options)
    return with_argv(decide(plan_request(known, options), known))


def with_argv(plan: Plan) -> Plan:
    """The plan with ``vllm_argv`` rendered on every candidate."""
    from qwenhost.render import vllm_argv

    def rendered(candidate: Candidate) -> Candidate:
        return msgspec.structs.replace(candidate, vllm_argv=tuple(vllm_argv(candidate)))

    return msgspec.structs.replace(
        plan,
        chosen=rendered(plan.chosen),
        alternatives=tuple(rendered(c) for c in plan.alternatives),
        fallbacks=tuple(msgspec.structs.replace(f, candidate=rendered(f.candidate)) for f in plan.fallbacks),
    )
