"""What a figure in a profile may be, and which rows may stand beside one another, up to the very limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qwenhost.profiles import ProfileError, load_catalog
from qwenhost.profiles.mistakes import SHOWN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOURCE = "source: {where: a test bench, as_of: 2026-11-01}"
WORKLOAD = f"""workloads:
- id: mine
  description: by hand
  input_tokens: {{mean: 100, p50: 90}}
  output_tokens: {{mean: 10}}
  prefix_hit_5m: 0.5
  thinking_share: 0.25
  mean_over_peak: 0.3
  requests_per_session: 2
  slo: {{ttft_ms: 500, percentile: 90}}
  {SOURCE}
"""
OWNED = f"""owned_gpus:
- gpu: h200
  purchase_usd_low: 100
  purchase_usd_high: 200
  facility_kw: 0.9
  {SOURCE}
"""
PRICE = f"""gpu_prices:
- gpu: h200
  provider: mine
  tier: spot
  usd_per_gpu_hour: 1.5
  min_gpus: 1
  {SOURCE}
"""
GPU = f"""gpus:
- id: mine
  name: My GPU
  nvml_pattern: My GPU
  aliases: [mygpu, my other gpu]
  architecture: hopper
  memory_bytes: 1000
  hbm_bytes_per_s: 1e12
  bf16_flops: 1e15
  link: pcie
  link_bytes_per_s: 6e10
  compute_capability: 9.0
  power_w: 100
  {SOURCE}
"""
CHECKPOINT = f"""checkpoints:
- id: mine
  repo_id: me/mine
  architecture: Qwen3.5-122B-A10B
  quantization: none
  formats: {{default: bf16}}
  mtp: false
  disk_bytes: 1
  disk_bytes_basis: assumed
  min_compute_capability: 8.0
  max_tensor_parallel_size: 1
  {SOURCE}
"""
CALIBRATION = f"""calibrations:
- id: mine
  gpu_architecture: hopper
  gpu: h200
  vllm_version: 0.33.0
  kernels:
    gemm_bf16: {{t0_s: 1e-6, bandwidth_efficiency: 1.0, flops_efficiency: 0.8}}
  constants: {{}}
  relative_band_low: 0.2
  relative_band_high: 0.2
  basis: assumed
  measurements: []
  {SOURCE}
"""
ASSUMPTION = f"assumptions:\n- id: x\n  value: 0\n  low: 0\n  high: 2\n  unit: u\n  why: w\n  {SOURCE}\n"
API = f"""api_prices:
- id: mine
  name: Mine
  kind: other
  provider: me
  model: mine-1
  context_tokens: 1000
  periods:
  - until: 2026-01-31
    usd_per_mtok: {{input: 3, output: 15, cache_read: 0}}
    {SOURCE}
  - since: 2026-02-01
    usd_per_mtok: {{input: 2, output: 10}}
    long_context_threshold_tokens: 500
    long_context_usd_per_mtok: {{input: 4, output: 20}}
    {SOURCE}
  {SOURCE}
"""
RIGHT = (WORKLOAD, OWNED, PRICE, GPU, CHECKPOINT, CALIBRATION, ASSUMPTION, API)

# (the right text, what is replaced, by what, line, key, what is said)
WRONG = (
    (WORKLOAD, "{mean: 100,", "{mean: 0,", 4, "workloads[0].input_tokens.mean", "> 0.0 (0)"),
    (WORKLOAD, "p50: 90", "p50: -1", 4, "workloads[0].input_tokens.p50", "> 0.0 (-1)"),
    (WORKLOAD, "{mean: 10}", "{mean: -0.5}", 5, "workloads[0].output_tokens.mean", "> 0.0 (-0.5)"),
    (WORKLOAD, "5m: 0.5", "5m: 1.01", 6, "workloads[0].prefix_hit_5m", "<= 1.0 (1.01)"),
    (WORKLOAD, "5m: 0.5", "5m: -0.01", 6, "workloads[0].prefix_hit_5m", ">= 0.0 (-0.01)"),
    (WORKLOAD, "share: 0.25", "share: 25", 7, "workloads[0].thinking_share", "<= 1.0 (25)"),
    # the mean of a service without any use is no mean: capacity would be divided by it
    (WORKLOAD, "peak: 0.3", "peak: 0", 8, "workloads[0].mean_over_peak", "> 0.0 (0)"),
    (WORKLOAD, "peak: 0.3", "peak: 1.5", 8, "workloads[0].mean_over_peak", "<= 1.0 (1.5)"),
    (WORKLOAD, "session: 2", "session: 0", 9, "workloads[0].requests_per_session", "> 0.0 (0)"),
    (WORKLOAD, "percentile: 90", "percentile: 101", 10, "workloads[0].slo.percentile", "<= 100.0 (101)"),
    (OWNED, "gpu: h200", "gpu: h2000", 2, "owned_gpus[0].gpu", "no 'h2000' among gpus; known: "),
    (OWNED, "usd_low: 100", "usd_low: 0", 3, "owned_gpus[0].purchase_usd_low", "0.0: expected more than 0"),
    (OWNED, "usd_high: 200", "usd_high: 99", 4, "owned_gpus[0].purchase_usd_high", "99.0 is below the low"),
    (OWNED, "kw: 0.9", "kw: -0.9", 5, "owned_gpus[0].facility_kw", "-0.9: expected more than 0"),
    (PRICE, "min_gpus: 1", "min_gpus: 0", 6, "gpu_prices[0].min_gpus", "0: expected more than 0"),
    (PRICE, "hour: 1.5", "hour: 0", 5, "gpu_prices[0].usd_per_gpu_hour", "0.0: expected more than 0"),
    (GPU, "memory_bytes: 1000", "memory_bytes: 0", 7, "gpus[0].memory_bytes", "0: expected more than 0"),
    (GPU, "hbm_bytes_per_s: 1e12", "hbm_bytes_per_s: 0", 8, "gpus[0].hbm_bytes_per_s", "more than 0"),
    (GPU, "1e15", "-1e15", 9, "gpus[0].bf16_flops", "-1000000000000000.0: expected more than 0"),
    (GPU, "6e10", "0", 11, "gpus[0].link_bytes_per_s", "0.0: expected more than 0"),
    (GPU, "power_w: 100", "power_w: 0", 13, "gpus[0].power_w", "0.0: expected more than 0"),
    # names are compared without case, blanks and signs, and each where it stands
    (GPU, "id: mine", "id: H-200-SXM", 2, "gpus[0].id", "'H-200-SXM' also names h200"),
    (GPU, "name: My GPU", "name: nvidia h200", 3, "gpus[0].name", "'nvidia h200' also names h200"),
    (GPU, "my other gpu", "h_200", 5, "gpus[0].aliases[1]", "'h_200' also names h200"),
    (CHECKPOINT, "disk_bytes: 1\n", "disk_bytes: 0\n", 8, "checkpoints[0].disk_bytes", "more than 0"),
    (CHECKPOINT, "size: 1", "size: 0", 11, "checkpoints[0].max_tensor_parallel_size", "more than 0"),
    (CALIBRATION, "gpu: h200", "gpu: h2", 4, "calibrations[0].gpu", "no 'h2' among gpus"),
    (
        CALIBRATION, "bandwidth_efficiency: 1.0", "bandwidth_efficiency: 0", 7,
        "calibrations[0].kernels.gemm_bf16.bandwidth_efficiency", "0.0 is not within 0 to 1",
    ),
    (ASSUMPTION, "value: 0", "value: -0.1", 3, "assumptions[0].value", "not within its range 0.0 to 2.0"),
    (ASSUMPTION, "high: 2", "high: -1", 3, "assumptions[0].value", "not within its range 0.0 to -1.0"),
    (API, "until: 2026-01-31", "until: 2026-02-01", 12, "api_prices[0].periods[1]", "overlaps an earlier"),
    (API, "since: 2026-02-01", "since: 2026-01-31", 12, "api_prices[0].periods[1]", "overlaps an earlier"),
    (
        API, "since: 2026-02-01", "since: 2026-02-01\n    until: 2026-01-31", 13,
        "api_prices[0].periods[1].until", "2026-01-31 is before 2026-02-01",
    ),
    (
        API, "    long_context_threshold_tokens: 500\n", "", 12,
        "api_prices[0].periods[1]", "a long-context threshold and its rates go together",
    ),
    (
        API, "    long_context_usd_per_mtok: {input: 4, output: 20}\n", "", 12,
        "api_prices[0].periods[1]", "a long-context threshold and its rates go together",
    ),
    (
        API, "cache_read: 0", "cache_read: -0.3", 10,
        "api_prices[0].periods[0].usd_per_mtok.cache_read", "-0.3 is negative",
    ),
    (
        API, "output: 10}", "output: -10}", 13,
        "api_prices[0].periods[1].usd_per_mtok.output", "-10.0 is negative",
    ),
)  # fmt: skip


@pytest.mark.parametrize("text", RIGHT, ids=lambda text: str(text).partition(":")[0])
def test_what_stands_at_the_limit_loads(write: Callable[..., Path], text: str) -> None:
    """An efficiency of 1.0, a cached rate of 0, periods that meet: none of these is a mistake."""
    load_catalog([write(text)])


@pytest.mark.parametrize(
    ("text", "change", "at", "said"),
    [(text, (old, new), (line, key), said) for text, old, new, line, key, said in WRONG],
    ids=[f"{key} {new.strip()[:30]}" for _, _, new, _, key, _ in WRONG],
)
def test_what_lies_beyond_is_named(
    write: Callable[..., Path], text: str, change: tuple[str, str], at: tuple[int, str], said: str
) -> None:
    """One mistake each, with its line and key, what was found and what was expected."""
    assert text.count(change[0]) == 1
    folder = write(text.replace(*change))
    with pytest.raises(ProfileError) as caught:
        load_catalog([folder])
    assert [(found.line, found.key) for found in caught.value.mistakes] == [at]
    assert said in caught.value.message
    assert caught.value.message.startswith(f"{folder / 'mine.yaml'}:{at[0]}: {at[1]}: ")


@pytest.mark.parametrize("share", ["0", "1"])
def test_a_share_may_be_none_or_all(write: Callable[..., Path], share: str) -> None:
    """No hit at all and nothing but hits are figures that a workload may have."""
    text = WORKLOAD.replace("5m: 0.5", f"5m: {share}").replace("share: 0.25", f"share: {share}")
    found = load_catalog([write(text)]).workloads["mine"]
    assert (found.prefix_hit_5m, found.thinking_share) == (float(share), float(share))


def test_a_period_without_dates_stands_alone(write: Callable[..., Path]) -> None:
    """Open at both ends it overlaps whatever else there is."""
    text = API.replace("  - until: 2026-01-31\n    usd", "  - usd")
    with pytest.raises(ProfileError, match=r"periods\[1\]: overlaps an earlier period"):
        load_catalog([write(text)])


def test_a_price_needs_a_period(write: Callable[..., Path]) -> None:
    head, _, _ = API.partition("  periods:")
    folder = write(f"{head}  periods: []\n  {SOURCE}\n")
    with pytest.raises(ProfileError, match=r"api_prices\[0\]\.periods: expected one period at least"):
        load_catalog([folder])


@pytest.mark.parametrize(("rows", "more"), [(SHOWN, None), (SHOWN + 1, 1), (SHOWN + 30, 30)])
def test_a_flood_of_mistakes_is_cut_short(write: Callable[..., Path], rows: int, more: int | None) -> None:
    """Twenty are shown and the rest counted; all are kept for --json."""
    wrong = ASSUMPTION.removeprefix("assumptions:\n").replace("why: w", "wyh: w")
    text = "assumptions:\n" + "".join(wrong.replace("id: x", f"id: x{number}") for number in range(rows))
    with pytest.raises(ProfileError) as caught:
        load_catalog([write(text)])
    assert len(caught.value.mistakes) == rows
    lines = caught.value.message.splitlines()
    assert lines[SHOWN:] == ([] if more is None else [f"... and {more} more"])
    assert "did you mean `why`?" in lines[0]
