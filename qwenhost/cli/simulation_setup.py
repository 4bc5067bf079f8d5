"""What both simulated commands need of a plan: the scheduler's configuration and the step times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.facts import Catalog, Workload
    from qwenhost.plan import Plan, StepShape
    from qwenhost.simulate.config import EngineConfig
    from qwenhost.simulate.virtual import Simulation, Simulator


def planned_engine(
    known: Catalog, plan: Plan, acceptance: str | None
) -> tuple[EngineConfig, Callable[[StepShape], float]]:
    """The scheduler's view of the plan's chosen candidate, and seconds per step of one rank."""
    from qwenhost.planner import step_time_function
    from qwenhost.simulate.config import engine_config

    rates = acceptance_rates(known, plan, acceptance)
    step_time = step_time_function(plan.chosen, plan.inputs.node, known, plan.inputs.vllm_version)
    return engine_config(plan.chosen, rates), step_time


def acceptance_rates(known: Catalog, plan: Plan, given: str | None) -> tuple[float, ...]:
    """Accepted share of each draft position: as given, else the calibration's.

    Raises:
        BadInputError: not numbers within 0 and 1, or increasing.
    """
    drafts = plan.chosen.engine_args.num_speculative_tokens
    if given is not None:
        return _parsed(given)
    if not drafts:
        return ()
    from qwenhost.planner.constants import Constants

    constants = Constants(known.gpus[plan.inputs.node.gpus[0].spec or ""], known.calibrations)
    rates = [constants[f"mtp_acceptance_{position}"] for position in range(1, min(drafts, 3) + 1)]
    # Nobody has published positions beyond the third: they are taken as never accepted.
    return (*rates, *[0.0] * (drafts - len(rates)))


def _parsed(given: str) -> tuple[float, ...]:
    from qwenhost.errors import BadInputError

    try:
        rates = tuple(float(part) for part in given.split(","))
    except ValueError:
        rates = (-1.0,)
    if any(not 0 <= rate <= 1 for rate in rates) or list(rates) != sorted(rates, reverse=True):
        raise BadInputError(
            f"--acceptance {given!r}: expected shares within 0 and 1, none above the one before",
            remedy="Write for example --acceptance 0.84,0.64.",
        )
    return rates


def plan_of(known: Catalog, path: Path | None, options: dict[str, Any]) -> Plan:
    """The saved plan, or a fresh one for the described node."""
    from qwenhost.cli import wiring
    from qwenhost.plan import load_plan

    return wiring.make_plan(known, options) if path is None else load_plan(path)


def simulated(known: Catalog, options: dict[str, Any]) -> Simulation:
    """Run what the options ask for.

    Raises:
        BadInputError: loads that exclude each other, or a bad file.
    """
    import time

    from qwenhost.simulate.virtual import Labels, Simulator, summarise

    only_one_load(options)
    plan = plan_of(known, options["plan_file"], options)
    config, step_time = planned_engine(known, plan, options["acceptance"])
    chosen = workload_of(known, plan, options)
    started = time.perf_counter()
    simulator = Simulator(config, step_time, seed=options["seed"])
    load, notes = run_load(simulator, plan, chosen, options)
    labels = Labels(
        engine=plan.chosen.label,
        gpus=plan.inputs.node.description,
        workload=options["trace_file"].name if options["trace_file"] else chosen.id,
        seed=options["seed"],
        assumptions=notes,
    )
    return summarise(simulator, labels, load, chosen.slo, started)


def workload_of(known: Catalog, plan: Plan, options: dict[str, Any]) -> Workload:
    """The preset named on the command line, else the plan's own; sizes given there replace its sizes."""
    import msgspec

    from qwenhost.cli import wiring

    if options["workload"] is None:
        own = plan.inputs.workload_detail
        known = msgspec.structs.replace(known, workloads={**known.workloads, own.id: own})
        options = {**options, "workload": own.id}
    return wiring.workload(known, options)


def run_load(
    simulator: Simulator, plan: Plan, chosen: Workload, options: dict[str, Any]
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Drive the simulator; returns the load's description and what was assumed."""
    from itertools import islice

    from qwenhost.simulate.load import Arrival, arrival_times, assumptions, drawn_requests
    from qwenhost.simulate.trace import read_trace

    config, seed = simulator.config, options["seed"]
    if options["trace_file"]:
        arrivals = read_trace(options["trace_file"], block_size=config.block_size, limit=options["count"])
        simulator.open_loop(arrivals)
        rate = len(arrivals) / max(arrivals[-1].at_s, 1e-9)
        return {"kind": "open", "rate": rate, "arrivals": "trace"}, ()
    count, drawn = options["count"] or 1000, drawn_requests(chosen, config, seed)
    if options["rate"]:
        law, rate = options["arrivals"], options["rate"]
        due = zip(arrival_times(law, rate, seed), islice(drawn, count), strict=False)
        simulator.open_loop(Arrival(at, request) for at, request in due)
        return {"kind": "open", "rate": rate, "arrivals": law}, assumptions(chosen)
    users = options["concurrency"] or max(1, round(plan.chosen.estimate.concurrency.value))
    simulator.closed_loop(drawn, concurrency=users, count=count, ramp_s=options["ramp_up_s"])
    return {"kind": "closed", "concurrency": users}, assumptions(chosen)


def only_one_load(options: dict[str, Any]) -> None:
    """At most one of --rate, --concurrency and --trace.

    Raises:
        BadInputError: more than one.
    """
    from qwenhost.errors import BadInputError

    flags = {"--rate": "rate", "--concurrency": "concurrency", "--trace": "trace_file"}
    given = [flag for flag, name in flags.items() if options.get(name)]
    if len(given) > 1:
        raise BadInputError(f"{' and '.join(given)} exclude each other", remedy="Give one of them.")
    if options["ramp_up_s"] and given and given != ["--concurrency"]:
        raise BadInputError(
            f"--ramp-up has no effect with {given[0]}", remedy="It is for the users of --concurrency."
        )


def serve_simulated(known: Catalog, options: dict[str, Any]) -> None:
    """Serve a plan's simulated engine until told to stop.

    Raises:
        BadInputError: a bad plan, fault or key file.
        UnavailableError: the address is in use.
    """
    from qwenhost.plan import load_plan
    from qwenhost.simulate.api import Settings
    from qwenhost.simulate.faults import START_FAULTS, Faults
    from qwenhost.simulate.realtime import Host
    from qwenhost.simulate.server import Options, read_keys, serve
    from qwenhost.simulate.startup import startup_lines

    plan = load_plan(options["plan_file"])
    config, step_time = planned_engine(known, plan, options["acceptance"])
    names = options["names"] or (plan.chosen.checkpoint.repo_id,)
    seed, workload = options["seed"], plan.inputs.workload_detail
    faults = Faults(options["faults"], seed=seed)
    struck = faults.at_start()
    settings = Settings(
        model=plan.chosen.checkpoint.repo_id,
        served_model_names=tuple(names),
        max_model_len=config.max_model_len,
        vllm_version=plan.inputs.vllm_version,
        output_tokens=workload.output_tokens,
        thinking_share=workload.thinking_share,
        api_keys=read_keys(options["api_key_file"]),
        seed=seed,
    )
    serve(
        Host(
            config,
            step_time,
            model=names[0],
            seed=seed,
            speedup=options["speedup"],
            cache_info=cache_info(plan),
        ),
        settings,
        faults,
        Options(
            host=options["host"],
            port=options["port"],
            startup_seconds=options["startup_seconds"],
            shutdown_timeout_s=options["shutdown_timeout"],
            middleware=options["middleware"],
            ssl_certfile=options["ssl_certfile"],
            ssl_keyfile=options["ssl_keyfile"],
        ),
        lines=startup_lines(plan.chosen, plan.inputs.vllm_version),
        failure=None if struck is None else START_FAULTS[struck],
    )


def cache_info(plan: Plan) -> dict[str, object]:
    """What vLLM tells of its cache in ``vllm:cache_config_info``, from the plan."""
    args, cache = plan.chosen.engine_args, plan.chosen.kv_cache
    return {
        "kv_cache_size_tokens": cache.tokens,
        "kv_cache_max_concurrency": cache.max_concurrency_at_max_model_len,
        "cache_dtype": args.kv_cache_dtype,
        "gpu_memory_utilization": args.gpu_memory_utilization,
        "mamba_cache_mode": "align" if args.enable_prefix_caching else "none",
    }
