"""The built-in facts agree with figures published or measured elsewhere."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from qwenhost.facts import TEXT_GROUPS
from qwenhost.node import match_gpu_spec, parse_gpus
from qwenhost.profiles import KINDS, rows_of
from qwenhost.profiles.lookup import load_bytes, stored_bytes
from qwenhost.profiles.sources import sources_in
from qwenhost.units import GIB, MIB

if TYPE_CHECKING:
    from qwenhost.facts import Catalog

# By the shapes of transformers 5.23.0, whose model on the meta device has 122,562,817,776 parameters
# without the MTP layer.
PARAMETERS_122B = {
    "embed_tokens": 762_839_040,
    "lm_head": 762_839_040,
    "linear_attn": 3_170_893_824,
    "linear_attn_small": 15_934_464,
    "self_attn": 943_718_400,
    "qk_norm": 6_144,
    "router": 37_748_736,
    "routed_experts": 115_964_116_992,
    "shared_expert": 452_984_832,
    "shared_expert_gate": 147_456,
    "norms": 297_984,
    "mtp_fc": 18_874_368,
    "mtp_self_attn": 78_643_712,
    "mtp_routed_experts": 2_415_919_104,
    "vision": 451_290_864,
}


def test_parameters_of_the_122b_by_group(builtin: Catalog) -> None:
    """Each module group has as many parameters as the model built by transformers."""
    found = builtin.architectures["Qwen3.5-122B-A10B"].parameters
    assert {group: found[group] for group in PARAMETERS_122B} == PARAMETERS_122B
    # Router, shared expert and its gate of the MTP layer are 10,226,688; its norms 15,360.
    assert found["mtp_shared_expert"] + found["mtp_small"] == 10_226_688 + 15_360


@pytest.mark.parametrize(
    ("name", "text", "text_and_vision", "total"),
    [
        ("Qwen3.5-35B-A3B", 34_660_610_688, 35_107_181_936, 35_951_822_704),
        ("Qwen3.5-122B-A10B", 122_111_526_912, 122_562_817_776, 125_086_497_008),
        ("Qwen3.5-397B-A17B", 396_346_350_336, 396_802_360_816, 403_397_928_944),
    ],
)
def test_parameter_totals(builtin: Catalog, name: str, text: int, text_and_vision: int, total: int) -> None:
    """Text, vision and the whole checkpoint add up for the three sizes."""
    architecture = builtin.architectures[name]
    counted = sum(architecture.parameters[group] for group in TEXT_GROUPS)
    assert counted == text
    assert counted + architecture.parameters["vision"] == text_and_vision
    assert architecture.total_parameters == total


# Sizes in GB that the hub, a card or du gives; where the module list was inferred from the size, this
# checks our arithmetic, not the list.
PUBLISHED_DISK_GB = {
    "bf16": 250.17,
    "fp8": 127.0,
    "nvfp4": 77.76 * GIB / 1e9,
    "nvfp4-redhat": 76.484732971,
    "nvfp4-sehyo": 81.5,
    "nvfp4-txn545": 75.6,
    "int4-autoround": 67.4 * GIB / 1e9,
    "awq-cyankiwi": 80.0,
    "mxfp4-olka-fi": 74.0,
    "35b-gptq-int4": 24.4,
    "397b-fp8": 379 * GIB / 1e9,
}


@pytest.mark.parametrize(("name", "disk_gb"), PUBLISHED_DISK_GB.items())
def test_parameters_times_format_give_the_published_size(builtin: Catalog, name: str, disk_gb: float) -> None:
    """The files are as large as parameters times stored bytes per parameter, within 1.5 %."""
    checkpoint = builtin.checkpoints[name]
    computed = stored_bytes(builtin, builtin.architectures[checkpoint.architecture], checkpoint)
    assert computed / 1e9 == pytest.approx(disk_gb, rel=0.015)


def test_every_recorded_size_is_the_computed_one(builtin: Catalog) -> None:
    """disk_bytes follows from the formats, except where experts were pruned away."""
    for checkpoint in builtin.checkpoints.values():
        if checkpoint.id == "int4-nota":
            continue
        computed = stored_bytes(builtin, builtin.architectures[checkpoint.architecture], checkpoint)
        assert computed == pytest.approx(checkpoint.disk_bytes, rel=0.015), checkpoint.id


# Weights in GiB at TP1, vision included, MTP layer not, computed independently of these profiles.
LOAD_GIB = {
    "bf16": 228.29, "fp8": 116.06, "gptq-int4": 68.40, "nvfp4": 73.04, "nvfp4-redhat": 71.17,
    "nvfp4-sehyo": 71.17, "int4-autoround": 62.71, "awq-cyankiwi": 73.04, "mxfp4-olka-fi": 69.05,
}  # fmt: skip


@pytest.mark.parametrize(("name", "gib"), LOAD_GIB.items())
def test_weights_in_memory(builtin: Catalog, name: str, gib: float) -> None:
    """Parameters times loaded bytes per parameter, to a hundredth of a GiB."""
    checkpoint = builtin.checkpoints[name]
    computed = load_bytes(builtin, builtin.architectures[checkpoint.architecture], checkpoint)
    assert computed / GIB == pytest.approx(gib, abs=0.01)


@pytest.mark.parametrize(
    ("name", "gib"), [("int4-autoround", 62.65), ("35b-gptq-int4", 21.06), ("35b-bf16", 65.53)]
)
def test_weights_in_memory_against_logs(builtin: Catalog, name: str, gib: float) -> None:
    """The "Model loading took X GiB" of a log is met within half a per cent."""
    checkpoint = builtin.checkpoints[name]
    computed = load_bytes(builtin, builtin.architectures[checkpoint.architecture], checkpoint) / GIB
    assert checkpoint.measured_load_bytes["1"] / GIB == pytest.approx(gib, abs=0.001)
    assert computed == pytest.approx(gib, rel=0.005)


@pytest.mark.parametrize(
    ("text", "spec", "count", "memory_mib"),
    [
        ("2xH200", "h200", 2, 143_771),
        ("1xH200", "h200", 1, 143_771),
        ("8xH100-80GB", "h100-80gb", 8, 81_559),
        ("4xH100-80GB", "h100-80gb", 4, 81_559),
        ("8xA100-80GB", "a100-80gb", 8, 81_920),
        ("2x RTX PRO 6000", "rtx-pro-6000", 2, 97_887),
        ("1xRTX PRO 6000", "rtx-pro-6000", 1, 97_887),
        ("RTX6000PRO", "rtx-pro-6000", 1, 97_887),
        ("B200", "b200", 1, 183_359),
        ("1xB200", "b200", 1, 183_359),
        ("1xL40S", "l40s", 1, 46_068),
        ("RTX 4090", "rtx-4090", 1, 24_564),
        ("2xRTX 4090", "rtx-4090", 2, 24_564),
        ("1x NVIDIA H100 80GB HBM3", "h100-80gb", 1, 81_559),
        ("H100 NVL", "h100-nvl", 1, 95_830),
        ("8xMI300X", "mi300x", 8, 192 * 1024),
        ("DGX Spark", "gb10", 1, 121 * 1024),
    ],
)
def test_described_gpus(builtin: Catalog, text: str, spec: str, count: int, memory_mib: int) -> None:
    """What people call a GPU finds it, with the memory NVML reports."""
    node = parse_gpus(text, builtin.gpus)
    assert [gpu.spec for gpu in node.gpus] == [spec] * count
    assert node.gpus[0].memory_total_bytes == memory_mib * MIB


@pytest.mark.parametrize(
    ("name", "memory_mib", "capability", "spec"),
    [
        ("NVIDIA H200", 143_771, 9.0, "h200"),
        ("NVIDIA H100 80GB HBM3", 81_559, 9.0, "h100-80gb"),
        ("NVIDIA H100 PCIe", 81_559, 9.0, "h100-pcie"),
        ("NVIDIA H100 NVL", 95_830, 9.0, "h100-nvl"),
        ("NVIDIA A100-SXM4-80GB", 81_920, 8.0, "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", 81_920, 8.0, "a100-80gb-pcie"),
        ("NVIDIA A100-SXM4-40GB", 40_960, 8.0, None),
        ("NVIDIA B200", 183_359, 10.0, "b200"),
        ("NVIDIA B300 SXM6 AC", 275_040, 10.3, "b300"),
        ("NVIDIA GB200", 189_471, 10.0, "gb200"),
        ("NVIDIA GH200 480GB", 97_871, 9.0, "gh200"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97_887, 12.0, "rtx-pro-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 97_887, 12.0, "rtx-pro-6000-workstation"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 97_887, 12.0, "rtx-pro-6000-max-q"),
        ("NVIDIA GeForce RTX 4090", 24_564, 8.9, "rtx-4090"),
        ("NVIDIA GeForce RTX 3090 Ti", 24_564, 8.6, None),
    ],
)
def test_gpus_as_nvml_names_them(
    builtin: Catalog, name: str, memory_mib: int, capability: float, spec: str | None
) -> None:
    """An NVML name, its memory and its capability find one spec; another memory size finds none."""
    found = match_gpu_spec(name, memory_mib * MIB, capability, builtin.gpus.values())
    assert (found.id if found else None) == spec


def test_each_nvml_name_finds_its_own_spec(builtin: Catalog) -> None:
    """No spec's pattern takes another spec's name at the same memory and capability."""
    for spec in builtin.gpus.values():
        found = match_gpu_spec(
            spec.name, spec.memory_bytes, spec.compute_capability, reversed(builtin.gpus.values())
        )
        assert found is spec


def test_sonnet_46_price_by_date(builtin: Catalog) -> None:
    """Above 200,000 tokens the price was double until 2026-03-12, and flat since."""
    before, since = builtin.api_prices["claude-sonnet-4.6"].periods
    assert (before.until, since.since) == (dt.date(2026, 3, 12), dt.date(2026, 3, 13))
    assert before.long_context_threshold_tokens == 200_000
    assert before.long_context_usd_per_mtok is not None
    assert (before.long_context_usd_per_mtok.input, before.long_context_usd_per_mtok.output) == (6.0, 22.5)
    assert since.long_context_threshold_tokens is None
    rates = since.usd_per_mtok
    assert (rates.input, rates.output, rates.cache_write_5m, rates.cache_write_1h, rates.cache_read) == (
        3.0, 15.0, 3.75, 6.0, 0.30,
    )  # fmt: skip


def test_one_baseline(builtin: Catalog) -> None:
    """Sonnet 4.6 and nothing else is compared with unless told otherwise."""
    assert [price.id for price in builtin.api_prices.values() if price.baseline] == ["claude-sonnet-4.6"]


def test_every_fact_names_its_source(builtin: Catalog) -> None:
    """Each row says where it comes from and when, and no date lies after the facts were gathered."""
    for kind in KINDS:
        for row in rows_of(builtin, kind):
            for source in sources_in(row):
                assert len(source.where) >= 8, row
                assert source.as_of <= builtin.newest_fact


def test_every_gpu_architecture_has_a_calibration(builtin: Catalog) -> None:
    """Each GPU finds kernel constants for every class the planner times."""
    classes = {"gemm_bf16", "gemm_fp8", "gemm_int4", "gemm_fp4", "moe_bf16", "moe_fp8", "moe_int4", "moe_fp4",
               "gdn_decode", "attention_decode"}  # fmt: skip
    for spec in builtin.gpus.values():
        rows = [c for c in builtin.calibrations.values() if c.gpu_architecture == spec.architecture]
        assert rows, spec.id
        assert all(classes <= set(row.kernels) for row in rows), spec.id
