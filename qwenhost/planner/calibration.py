"""Refit the speed model's scales to runs of the user's own node.

A handful of runs cannot tell a dozen constants apart. Each scale therefore starts at the built-in value,
may move by a stated factor, and is moved only as far as the runs agree; what they could not tell stays
where it was. Every run is predicted once more without itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from qwenhost.facts import Calibration, Source, Value
from qwenhost.planner.constants import Constants, is_refit
from qwenhost.planner.fitting import Trust, fit
from qwenhost.planner.running import running_model, service_under

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from qwenhost.facts import Catalog
    from qwenhost.measurements import Measurements
    from qwenhost.node import Node
    from qwenhost.plan import Candidate
    from qwenhost.planner.performance import StepModel

ACCEPTANCE: Final = "mtp_acceptance"
"""All draft positions' acceptance, scaled together."""
# How far each may go, as a factor of one standard deviation, where the GPU's own band says nothing.
_FACTORS: Final[Mapping[str, float]] = {
    "t_fix_s": 1.5,  # hosts differ
    "t_seq_s": 1.5,
    "expert_skew_decay": 1.4,  # texts differ
    ACCEPTANCE: 1.2,
}
# Log error of a latency that scales cannot explain. First tokens hang on how requests fall together.
ROW_ERRORS: Final[Mapping[str, float]] = {"tpot_ms": 0.08, "ttft_ms": 0.20, "tokens_per_step": 0.02}
HIGHEST_ACCEPTANCE: Final = 0.99
# The band shrinks from the built-in one as runs gather: it counts as this many of them.
BUILT_IN_RUNS: Final = 3
NARROWEST_BAND: Final = 0.08
TWO_SIDED_90: Final = 1.645
SUSPICIOUS_ERROR: Final = 0.25
"""An error that is left above this is a matter of set-up and not of scales."""


class Run(NamedTuple):
    """A measured run and what ran."""

    name: str
    """Of its file."""
    candidate: Candidate
    node: Node
    measured: Measurements


class Scale(Value, frozen=True, kw_only=True):
    """One constant, refitted."""

    name: str
    start: float
    fitted: float
    factor: float
    """Fitted over start."""
    low: float
    """Of the factor, two standard deviations down."""
    high: float
    learned: float
    """Share of the prior's variance that the runs took away: 0 = nothing learned, 1 = known."""


class RunError(Value, frozen=True, kw_only=True):
    """Relative error of one figure of one run: predicted over measured, less one."""

    run: str
    figure: str
    """``tpot_ms``, ``ttft_ms``, ``tokens_per_step`` (drafts) or ``output_tokens_per_s``."""
    measured: float
    before: float
    """With the built-in constants."""
    after: float
    """In sample."""
    left_out: float | None
    """Fitted without this run; None for a single run."""


class Refit(Value, frozen=True, kw_only=True):
    """What the runs taught."""

    calibration: Calibration
    scales: tuple[Scale, ...]
    errors: tuple[RunError, ...]
    band_before: tuple[float, float]


def refit(runs: Sequence[Run], catalog: Catalog, *, vllm_version: str, today: dt.date) -> Refit:
    """The calibration that these runs of one GPU kind and one vLLM ask for.

    Raises:
        BadInputError: a plan's checkpoint or GPU is not in the catalog.
    """
    problem = _Problem(runs, catalog, vllm_version)
    shift, deviation = problem.solve(runs)
    without = {run.name: problem.solve([other for other in runs if other is not run])[0] for run in runs}
    errors = tuple(_errors(problem, runs, shift, without if len(runs) > 1 else {}))
    scales = tuple(
        Scale(
            name=name,
            start=problem.starts[name],
            fitted=problem.starts[name] * math.exp(move),
            factor=math.exp(move),
            low=math.exp(move - 2 * spread),
            high=math.exp(move + 2 * spread),
            learned=max(0.0, 1 - (spread / width) ** 2),
        )
        for (name, width), move, spread in zip(
            problem.widths.items(), shift.tolist(), deviation.tolist(), strict=True
        )
    )
    before = problem.built_in.calibration
    row = msgspec.structs.replace(
        problem.row(shift),
        relative_band_low=_band(errors, before.relative_band_low),
        relative_band_high=_band(errors, before.relative_band_high),
        measurements=tuple(_words(run) for run in runs),
        source=Source(
            where=", ".join(run.name for run in runs),
            as_of=today,
            note="Written by: qwenhost calibrate. Delete the file to undo.",
        ),
    )
    return Refit(
        calibration=row,
        scales=scales,
        errors=errors,
        band_before=(before.relative_band_low, before.relative_band_high),
    )


class _Problem:
    """Scales, their starts and widths, and predictions at any shift of them."""

    def __init__(self, runs: Sequence[Run], catalog: Catalog, vllm_version: str) -> None:
        self._version = vllm_version
        self._spec = catalog.gpus[str(runs[0].node.gpus[0].spec)]
        # Each refit starts from what came with the program, not from an earlier refit.
        kept = {
            name: row
            for name, row in catalog.calibrations.items()
            if not (is_refit(row) and row.gpu == self._spec.id)
        }
        self._catalog = msgspec.structs.replace(catalog, calibrations=kept)
        self.built_in = Constants(self._spec, kept, vllm_version)
        drafts = any(run.candidate.engine_args.num_speculative_tokens for run in runs)
        band = math.log1p(self.built_in.calibration.relative_band_high)
        prefill = math.log1p(self.built_in["prefill_relative_band"])
        self.widths = {"step_time_multiplier": band, "flops_time_multiplier": prefill} | {
            name: math.log(factor) for name, factor in _FACTORS.items() if name != ACCEPTANCE or drafts
        }
        self.starts = {name: 1.0 if name == ACCEPTANCE else self.built_in[name] for name in self.widths}

    def row(self, shift: NDArray[np.float64]) -> Calibration:
        """The calibration at a shift of the scales."""
        factors = dict(zip(self.widths, np.exp(shift).tolist(), strict=True))
        acceptance = factors.pop(ACCEPTANCE, None)
        constants = {name: self.starts[name] * factor for name, factor in factors.items()}
        if acceptance is not None:
            for name in [name for name in self.built_in if name.startswith("mtp_acceptance_")]:
                constants[name] = min(HIGHEST_ACCEPTANCE, self.built_in[name] * acceptance)
        before = self.built_in.calibration
        return Calibration(
            id=f"speed-{self._spec.id}-vllm-{self._version}",
            gpu_architecture=self._spec.architecture,
            gpu=self._spec.id,
            vllm_version=self._version,
            kernels={},
            constants=constants,
            relative_band_low=before.relative_band_low,
            relative_band_high=before.relative_band_high,
            basis="measured",
            measurements=(),
            source=before.source,
        )

    def predictions(self, runs: Sequence[Run], shift: NDArray[np.float64]) -> list[dict[str, float]]:
        """The figures of each run."""
        row = self.row(shift)
        rows = {**self._catalog.calibrations, row.id: row}
        catalog = msgspec.structs.replace(self._catalog, calibrations=rows)
        models = {
            id(run.candidate): running_model(run.candidate, run.node, catalog, self._version) for run in runs
        }
        return [_figures(models[id(run.candidate)], run) for run in runs]

    def solve(self, runs: Sequence[Run]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shift of each scale, and its standard deviation."""
        known = [(run, name, value) for run in runs for name, value in fitted_figures(run).items()]
        weights = [ROW_ERRORS["tpot_ms"] / ROW_ERRORS[name] for _, name, _ in known]

        def log_errors(shift: NDArray[np.float64]) -> NDArray[np.float64]:
            found = dict(zip((run.name for run in runs), self.predictions(runs, shift), strict=True))
            return np.array([math.log(found[run.name][name] / value) for run, name, value in known])

        trust = Trust(list(self.widths.values()), ROW_ERRORS["tpot_ms"])
        return fit(log_errors, trust, sources=["own"] * len(known), weights=weights)


def fitted_figures(run: Run) -> dict[str, float]:
    """Its latencies, and the server's own count of accepted drafts where it has one."""
    found, told = latencies(run.measured), run.measured.engine_counters.get("spec_decode_acceptance_length")
    if told and run.candidate.engine_args.num_speculative_tokens:
        found["tokens_per_step"] = told
    return found


def latencies(measured: Measurements) -> dict[str, float]:
    """What a run is fitted to. The median first token: the mean bears the burst a closed loop begins with."""
    found = {"tpot_ms": measured.tpot_ms.mean, "ttft_ms": measured.ttft_ms.p50}
    return {name: value for name, value in found.items() if value is not None and value > 0}


def _figures(model: StepModel, run: Run) -> dict[str, float]:
    service = service_under(model, run.candidate, run.measured)
    groups = run.candidate.parallelism.serving_groups
    return {
        "tpot_ms": service.tpot_s * 1000,
        "ttft_ms": service.ttft_s * 1000,
        "tokens_per_step": model.tokens_per_step,
        "output_tokens_per_s": groups * service.requests_per_s * run.measured.workload.mean_output_tokens,
    }


def _errors(
    problem: _Problem,
    runs: Sequence[Run],
    shift: NDArray[np.float64],
    without: Mapping[str, NDArray[np.float64]],
) -> Iterator[RunError]:
    """Every figure of every run: before, after, and fitted without it."""
    before = problem.predictions(runs, np.zeros(len(problem.widths)))
    after = problem.predictions(runs, shift)
    for index, run in enumerate(runs):
        blind = problem.predictions([run], without[run.name])[0] if run.name in without else None
        known = fitted_figures(run)
        closed = run.measured.load.kind == "closed"  # an open loop's rate is what was offered
        if closed and run.measured.output_tokens_per_s > 0:
            known["output_tokens_per_s"] = run.measured.output_tokens_per_s
        for figure, value in known.items():
            yield RunError(
                run=run.name,
                figure=figure,
                measured=value,
                before=before[index][figure] / value - 1,
                after=after[index][figure] / value - 1,
                left_out=None if blind is None else blind[figure] / value - 1,
            )


def _band(errors: Sequence[RunError], built_in: float) -> float:
    """What the left-out errors support; with few runs still near the built-in band."""
    seen = [one.left_out for one in errors if one.figure == "tpot_ms" and one.left_out is not None]
    spread = math.fsum(math.log1p(error) ** 2 for error in seen)
    expected = BUILT_IN_RUNS * (built_in / TWO_SIDED_90) ** 2
    return max(NARROWEST_BAND, TWO_SIDED_90 * math.sqrt((spread + expected) / (len(seen) + BUILT_IN_RUNS)))


def _words(run: Run) -> str:
    work, load = run.measured.workload, run.measured.load
    offered = (
        f"{load.rate:g} requests/s" if load.kind == "open" and load.rate else f"{load.concurrency} at once"
    )
    tokens = f"{work.mean_input_tokens:,.0f}+{work.mean_output_tokens:,.0f} tokens"
    return f"{run.name}: {run.candidate.label}, {offered}, {tokens}, {run.measured.started_at:%Y-%m-%d}"
