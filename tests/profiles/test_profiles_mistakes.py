"""Each kind of mistake in a profile names file, line, key and what was expected."""

# ruff: noqa: E501 - a table of mistakes reads by line

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qwenhost.errors import BadInputError
from qwenhost.profiles import ProfileError, load_catalog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOURCE = "source: {where: a test bench, as_of: 2026-11-01}"
PRICE = f"gpu_prices:\n- gpu: h200\n  provider: mine\n  tier: spot\n  usd_per_gpu_hour: 1.5\n  {SOURCE}\n"
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
  vllm_version: 0.33.0
  kernels:
    gemm_bf16: {{t0_s: 1e-6, bandwidth_efficiency: 0.9, flops_efficiency: 0.8}}
    moe_bf16: {{t0_s: 1e-6, bandwidth_efficiency: 0.9, flops_efficiency: 0.8}}
  constants: {{}}
  relative_band_low: 0.2
  relative_band_high: 0.2
  basis: assumed
  measurements: []
  {SOURCE}
"""
ASSUMPTION = f"assumptions:\n- id: x\n  value: 1\n  low: 0\n  high: 2\n  unit: u\n  why: w\n  {SOURCE}\n"
GPU = f"""gpus:
- id: mine
  name: My GPU
  nvml_pattern: My GPU
  aliases: [mygpu]
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

MISTAKES = [
    # (what, file's text, line, key, part of the message)
    ("unknown key", PRICE.replace("provider:", "provder:"), 3, "gpu_prices[0].provder", "did you mean `provider`"),
    ("missing key", PRICE.replace("  tier: spot\n", ""), 2, "gpu_prices[0]", "missing key `tier`"),
    ("missing source", PRICE.replace(f"  {SOURCE}\n", ""), 2, "gpu_prices[0]", "missing key `source` {where, as_of"),
    ("source without date", PRICE.replace(", as_of: 2026-11-01", ""), 6, "gpu_prices[0].source", "`as_of`"),
    ("wrong type", PRICE.replace("1.5", "cheap"), 5, "gpu_prices[0].usd_per_gpu_hour", "expected `float`, got `str` ('cheap')"),
    ("not of the list", PRICE.replace("spot", "sport"), 4, "gpu_prices[0].tier", "sport"),
    ("not a date", PRICE.replace("2026-11-01", "soon"), 6, "gpu_prices[0].source.as_of", "'soon'"),
    ("negative price", PRICE.replace("1.5", "-1.5"), 5, "gpu_prices[0].usd_per_gpu_hour", "more than 0"),
    ("price of an unknown GPU", PRICE.replace("h200", "h201"), 2, "gpu_prices[0].gpu", "no 'h201' among gpus"),
    ("duplicate row", PRICE + PRICE.removeprefix("gpu_prices:\n"), 7, "gpu_prices[1].gpu", "already in"),
    ("duplicate key", PRICE.replace("tier: spot", "tier: spot\n  tier: spot"), 5, "gpu_prices[0].tier", "first in line 4"),
    ("unknown kind", PRICE.replace("gpu_prices", "gpu_price"), 1, "gpu_price", "did you mean `gpu_prices`"),
    ("kind is no list", "gpus:\n  id: h200\n", 2, "gpus", "expected a list of rows, found a mapping"),
    ("file is a list", "- id: h200\n", 1, "", "expected a mapping of kinds"),
    ("row is text", "gpus:\n- h200\n", 2, "gpus[0]", "expected `object`, got `str`"),
    ("not YAML", "gpus: [\n", 2, "", "not valid YAML"),
    ("tab", "gpus:\n\t- id: x\n", 2, "", "not valid YAML"),
    ("unknown architecture", CHECKPOINT.replace("122B-A10B\n", "123B\n"), 4, "checkpoints[0].architecture", "no 'Qwen3.5-123B'"),
    ("unknown format", CHECKPOINT.replace("bf16", "bf17"), 6, "checkpoints[0].formats.default", "no 'bf17' among formats"),
    ("unknown module", CHECKPOINT.replace("{default: bf16}", "{default: bf16, expert: bf16}"), 6, "checkpoints[0].formats.expert", "unknown module group"),
    ("no default format", CHECKPOINT.replace("{default: bf16}", "{vision: bf16}"), 6, "checkpoints[0].formats", "missing key `default`"),
    ("wrong type inside a free mapping", CALIBRATION.replace("moe_bf16: {t0_s: 1e-6", "moe_bf16: {t0_s: fast"), 7, "calibrations[0].kernels.moe_bf16.t0_s", "'fast'"),
    ("efficiency above one", CALIBRATION.replace("0.8}", "1.8}", 1), 6, "calibrations[0].kernels.gemm_bf16.flops_efficiency", "1.8"),
    ("unknown GPU architecture", CALIBRATION.replace("hopper", "grace"), 3, "calibrations[0].gpu_architecture", "hopper"),
    ("value outside its range", ASSUMPTION.replace("value: 1", "value: 3"), 3, "assumptions[0].value", "0.0 to 2.0"),
    ("alias of another GPU", GPU.replace("mygpu", "h200 sxm"), 5, "gpus[0].aliases[0]", "also names h200"),
    ("bad pattern", GPU.replace("pattern: My GPU", "pattern: '('"), 4, "gpus[0].nvml_pattern", "not a regular expression"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "key", "part"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_a_mistake_names_file_line_and_key(
    write: Callable[..., Path], text: str, line: int, key: str, part: str
) -> None:
    """The one mistake of a file is told with its place and what was expected, and ends with exit code 2."""
    folder = write(text)
    with pytest.raises(ProfileError) as caught:
        load_catalog([folder])
    (mistake,) = caught.value.mistakes
    assert (mistake.file, mistake.line, mistake.key) == (str(folder / "mine.yaml"), line, key)
    assert part in mistake.message
    assert str(mistake) in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text", [PRICE, CHECKPOINT, CALIBRATION, ASSUMPTION, GPU, "", "# nothing\n", "gpus: []\n"]
)
def test_the_same_rows_without_the_mistake_load(write: Callable[..., Path], text: str) -> None:
    """What the mistakes above were made from is right, so each test sees its own mistake."""
    load_catalog([write(text)])


def test_all_mistakes_are_told_at_once(write: Callable[..., Path]) -> None:
    """Mistakes of several rows and files come together."""
    write(PRICE.replace("1.5", "cheap") + PRICE.removeprefix("gpu_prices:\n").replace("spot", "sport"))
    folder = write(ASSUMPTION.replace("unit: u", "unti: u"), "other.yml")
    with pytest.raises(ProfileError) as caught:
        load_catalog([folder])
    assert [mistake.line for mistake in caught.value.mistakes] == [5, 9, 6]


def test_not_utf8(write: Callable[..., Path]) -> None:
    """Bytes that are no text are told as such, not as a traceback."""
    folder = write("")
    (folder / "mine.yaml").write_bytes(b"gpus: \xff\xfe\xfa")
    with pytest.raises(ProfileError, match=r"mine\.yaml: not valid YAML"):
        load_catalog([folder])


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A folder given by name must exist."""
    with pytest.raises(BadInputError, match="no such folder"):
        load_catalog([tmp_path / "nowhere"])


def test_python_tags_are_not_executed(write: Callable[..., Path]) -> None:
    """A YAML tag that names a Python function is refused."""
    folder = write("gpus: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ProfileError, match="not valid YAML"):
        load_catalog([folder])


@pytest.mark.parametrize(
    "text", ["gpus: &a [*a]\n", "gpus:\n- &a {id: *a}\n", "gpus:\n- &a {source: *a, id: x}\n"]
)
def test_a_file_that_contains_itself(write: Callable[..., Path], text: str) -> None:
    """An alias of what is around it ends with a mistake, not in a loop."""
    with pytest.raises(ProfileError, match=r"mine\.yaml:[12]: gpus"):
        load_catalog([write(text)])
