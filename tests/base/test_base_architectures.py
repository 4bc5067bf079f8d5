"""The shapes of a model counted a second way, tensor by tensor; and every other fact held to reason."""

from __future__ import annotations

import datetime as dt
from math import prod
from typing import TYPE_CHECKING

import msgspec
import pytest

from qwenhost.facts import MTP_GROUPS, TEXT_GROUPS, Architecture, ModuleGroup, WeightFormat
from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.facts import Catalog, VisionTower

Shape = tuple[int, ...]
NAMES = ("Qwen3.5-122B-A10B", "Qwen3.5-35B-A3B", "Qwen3.5-397B-A17B")


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, catalog: Catalog) -> Architecture:
    return catalog.architectures[request.param]


def mlp(hidden: int, width: int) -> list[Shape]:
    """gate_proj, up_proj, down_proj."""
    return [(width, hidden), (width, hidden), (hidden, width)]


def attention(a: Architecture) -> list[Shape]:
    """q_proj (twice as wide where its second half is the output gate), k_proj, v_proj, o_proj."""
    q, kv = a.num_attention_heads * a.head_dim, a.num_key_value_heads * a.head_dim
    return [
        (q * (2 if a.attn_output_gate else 1), a.hidden_size),
        (kv, a.hidden_size), (kv, a.hidden_size), (a.hidden_size, q),
    ]  # fmt: skip


def decoder_layer(a: Architecture, index: int) -> Iterator[tuple[ModuleGroup, Shape]]:
    """Each tensor of layer ``index``; every fourth has full attention."""
    h = a.hidden_size
    yield "norms", (h,)  # input_layernorm
    yield "norms", (h,)  # post_attention_layernorm
    if (index + 1) % a.full_attention_interval == 0:
        yield from (("self_attn", shape) for shape in attention(a))
        yield "qk_norm", (a.head_dim,)
        yield "qk_norm", (a.head_dim,)
    else:
        keys = a.linear_num_key_heads * a.linear_key_head_dim
        values = a.linear_num_value_heads * a.linear_value_head_dim
        yield "linear_attn", (keys + keys + values, h)  # in_proj_qkv
        yield "linear_attn", (values, h)  # in_proj_z
        yield "linear_attn", (h, values)  # out_proj
        yield "linear_attn_small", (a.linear_num_value_heads, h)  # in_proj_b
        yield "linear_attn_small", (a.linear_num_value_heads, h)  # in_proj_a
        yield "linear_attn_small", (keys + keys + values, 1, a.linear_conv_kernel_dim)  # conv1d
        yield "linear_attn_small", (a.linear_num_value_heads,)  # A_log
        yield "linear_attn_small", (a.linear_num_value_heads,)  # dt_bias
        yield "linear_attn_small", (a.linear_value_head_dim,)  # norm
    yield "router", (a.num_experts, h)
    for shape in mlp(h, a.moe_intermediate_size):
        yield "routed_experts", (a.num_experts, *shape)
    yield from (("shared_expert", shape) for shape in mlp(h, a.shared_expert_intermediate_size))
    yield "shared_expert_gate", (1, h)


def text_model(a: Architecture) -> Iterator[tuple[ModuleGroup, Shape]]:
    yield "embed_tokens", (a.vocab_size, a.hidden_size)
    if not a.tie_word_embeddings:
        yield "lm_head", (a.vocab_size, a.hidden_size)
    for index in range(a.num_hidden_layers):
        yield from decoder_layer(a, index)
    yield "norms", (a.hidden_size,)  # the last norm


def mtp_layer(a: Architecture) -> Iterator[tuple[ModuleGroup, Shape]]:
    """Fc over the embedding and the hidden state, one full-attention MoE layer, three norms of its own."""
    h = a.hidden_size
    yield "mtp_fc", (h, 2 * h)
    yield from (("mtp_self_attn", shape) for shape in attention(a))
    yield from (("mtp_self_attn", (a.head_dim,)) for _ in "qk")
    for shape in mlp(h, a.moe_intermediate_size):
        yield "mtp_routed_experts", (a.num_experts, *shape)
    yield from (("mtp_shared_expert", shape) for shape in mlp(h, a.shared_expert_intermediate_size))
    yield "mtp_small", (a.num_experts, h)
    yield "mtp_small", (1, h)
    # input_layernorm, post_attention_layernorm; pre_fc_norm_embedding, pre_fc_norm_hidden, norm
    yield from (("mtp_small", (h,)) for _ in range(5))


def summed(tensors: Iterator[tuple[ModuleGroup, Shape]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for group, shape in tensors:
        found[group] = found.get(group, 0) + prod(shape)
    return found


def test_each_group_is_the_sum_of_its_tensors(model: Architecture) -> None:
    """Two countings of one model; the formula knows no loop, the loop knows no formula."""
    expected = summed(text_model(model)) | summed(mtp_layer(model))
    assert {group: model.parameters[group] for group in (*TEXT_GROUPS, *MTP_GROUPS)} == expected


def vision_tensors(v: VisionTower) -> Iterator[Shape]:
    """Convolution over two frames, learned positions, blocks with biases, a merger of 2 x 2 patches."""
    h = v.hidden_size
    yield (h, v.in_channels, v.temporal_patch_size, v.patch_size, v.patch_size)
    yield (h,)
    yield (v.num_position_embeddings, h)
    for _ in range(v.depth):
        yield from ((h,), (h,), (h,), (h,))  # norm1 and norm2, weight and bias
        yield from ((3 * h, h), (3 * h,), (h, h), (h,))  # qkv, proj
        yield from ((v.intermediate_size, h), (v.intermediate_size,), (h, v.intermediate_size), (h,))
    merged = h * v.spatial_merge_size**2
    yield from ((h,), (h,))
    yield from ((merged, merged), (merged,), (v.out_hidden_size, merged), (v.out_hidden_size,))


def test_the_vision_tower_is_the_sum_of_its_tensors(model: Architecture) -> None:
    assert model.vision is not None
    assert model.parameters["vision"] == sum(prod(shape) for shape in vision_tensors(model.vision))
    assert model.vision.out_hidden_size == model.hidden_size


def test_layers_of_either_kind(model: Architecture) -> None:
    """Three Gated DeltaNet layers, then one with full attention."""
    kinds = [(index + 1) % model.full_attention_interval == 0 for index in range(model.num_hidden_layers)]
    assert model.num_full_attention_layers == sum(kinds)
    assert model.num_linear_attention_layers == len(kinds) - sum(kinds)
    assert model.num_linear_attention_layers == 3 * model.num_full_attention_layers


def test_the_names_name_the_sizes(model: Architecture, catalog: Catalog) -> None:
    """122B-A10B: 122 billion parameters of text and vision, about 10 billion used for a token."""
    total, active = model.id.removeprefix("Qwen3.5-").split("-")
    counted = sum(model.parameters[group] for group in (*TEXT_GROUPS, "vision"))
    assert counted / 1e9 == pytest.approx(float(total[:-1]), rel=0.015)
    idle = model.parameters["routed_experts"] * (1 - model.num_experts_per_tok / model.num_experts)
    used = sum(model.parameters[group] for group in TEXT_GROUPS) - idle
    assert used / 1e9 == pytest.approx(float(active[1:-1]), rel=0.16)


def test_groups_are_whole_and_apart(model: Architecture) -> None:
    assert set(model.parameters) == {*TEXT_GROUPS, *MTP_GROUPS, "vision"}
    assert not set(TEXT_GROUPS) & set(MTP_GROUPS)
    assert model.total_parameters == sum(model.parameters.values())
    assert all(count > 0 for count in model.parameters.values())


def changed(model: Architecture, **fields: object) -> Architecture:
    return msgspec.structs.replace(model, **fields)


def test_tied_embeddings_have_no_head_of_their_own(model: Architecture) -> None:
    tied = changed(model, tie_word_embeddings=True)
    assert tied.parameters["lm_head"] == 0
    assert model.total_parameters - tied.total_parameters == model.vocab_size * model.hidden_size


def test_without_the_output_gate_q_is_half_as_wide(model: Architecture) -> None:
    plain = changed(model, attn_output_gate=False)
    q = model.num_attention_heads * model.head_dim * model.hidden_size
    assert model.self_attn_layer_parameters - plain.self_attn_layer_parameters == q


def test_a_dense_sibling_has_neither_router_nor_gate(model: Architecture) -> None:
    """Its MLP stands where the shared expert does."""
    dense = changed(model, num_experts=0, num_experts_per_tok=0, shared_expert_intermediate_size=17408)
    found = dense.parameters
    for group in ("router", "routed_experts", "shared_expert_gate", "mtp_routed_experts"):
        assert found[group] == 0
    assert found["shared_expert"] == model.num_hidden_layers * 3 * model.hidden_size * 17408
    assert found["mtp_small"] == 5 * model.hidden_size


def test_without_mtp_or_vision_they_weigh_nothing(model: Architecture) -> None:
    bare = changed(model, mtp_num_hidden_layers=0, vision=None)
    assert sum(bare.parameters[group] for group in (*MTP_GROUPS, "vision")) == 0
    assert sum(bare.parameters[group] for group in TEXT_GROUPS) == bare.total_parameters


# Bytes per parameter by hand: bits/8, and per block of weights its scale and zero point.
STORED_AND_LOADED = {
    "bf16": (2.0, 2.0),
    # 128 x 128 weights share a BF16 scale in the file, an FP32 one in memory.
    "fp8_block128": (1 + 2 / 16384, 1 + 4 / 16384),
    # A scale for each row of 3,072.
    "fp8_channel": (1 + 2 / 3072, 1 + 2 / 3072),
    "nvfp4_g16": (0.5 + 1 / 16, 0.5 + 1 / 16),
    "mxfp4_g32": (0.5 + 1 / 32, 0.5 + 1 / 32),
    # Group of 128: an FP16 scale and a 4-bit zero point.
    "int4_g128": (0.5 + 2.5 / 128, 0.5 + 2.5 / 128),
    "awq_int4_g128": (0.5 + 2.5 / 128, 0.5 + 2.5 / 128),
    # Symmetric: the zero points in the files are dropped.
    "int4_g128_dense": (0.5 + 2.5 / 128, 0.5 + 2 / 128),
    "int4_g32": (0.5 + 2 / 32, 0.5 + 2 / 32),
    "gptq_int4_g32": (0.5 + 2.5 / 32, 0.5 + 2.5 / 32),
    "packed_int4_g32": (0.5 + 2.5 / 32, 0.5 + 2 / 32),
}


def test_every_format_is_checked(catalog: Catalog) -> None:
    assert set(catalog.formats) == set(STORED_AND_LOADED)


@pytest.mark.parametrize("name", STORED_AND_LOADED)
def test_bytes_of_a_parameter(catalog: Catalog, name: str) -> None:
    """As the files hold it and as vLLM does."""
    one: WeightFormat = catalog.formats[name]
    stored, loaded = STORED_AND_LOADED[name]
    assert one.stored_bytes_per_parameter == pytest.approx(stored, rel=1e-12)
    assert one.bytes_per_parameter == pytest.approx(loaded, rel=1e-12)
    assert one.group_size == (1 if name == "bf16" else one.scale_block[1])


def test_every_checkpoint_knows_a_format_for_every_group(catalog: Catalog) -> None:
    for checkpoint in catalog.checkpoints.values():
        for group in catalog.architectures[checkpoint.architecture].parameters:
            assert checkpoint.format_of(group) in catalog.formats
        assert set(checkpoint.formats) - {"default"} <= {*TEXT_GROUPS, *MTP_GROUPS, "vision"}
        assert checkpoint.min_compute_capability <= max(checkpoint.native_compute_capability, 9.0)
        assert checkpoint.disk_bytes > 10**10


def test_true_sizes_by_layer_sum_to_their_part(catalog: Catalog) -> None:
    for checkpoint in catalog.checkpoints.values():
        layers = catalog.architectures[checkpoint.architecture].num_hidden_layers
        for part in checkpoint.weights:
            assert part.bytes > 0
            if part.layer_bytes:
                assert sum(part.layer_bytes) == part.bytes
                assert len(part.layer_bytes) <= layers


def test_gpus_are_within_what_silicon_does(catalog: Catalog) -> None:
    """A misplaced power of ten in a profile would show here: bytes and flops against one another."""
    for gpu in catalog.gpus.values():
        assert 16 * 2**30 <= gpu.memory_bytes <= 320 * 2**30
        assert 0.2e12 <= gpu.hbm_bytes_per_s <= 10e12
        assert 50 <= gpu.bf16_flops / gpu.hbm_bytes_per_s <= 500  # flops a byte
        if gpu.fp8_flops is not None:
            assert 1.9 <= gpu.fp8_flops / gpu.bf16_flops <= 4.1
        if gpu.fp4_flops is not None and gpu.fp8_flops is not None:
            assert 0.9 <= gpu.fp4_flops / gpu.fp8_flops <= 4.1
        assert gpu.link_bytes_per_s < gpu.hbm_bytes_per_s
        assert 100 <= gpu.power_w <= 1500
        assert 8.0 <= gpu.compute_capability <= 12.1


def test_rent_is_per_gpu_and_hour(catalog: Catalog) -> None:
    """Between a community 3090 and a hyperscaler's B300; spot below on demand at the same provider."""
    by_offer = {(p.gpu, p.provider, p.tier): p.usd_per_gpu_hour for p in catalog.gpu_prices}
    for price in catalog.gpu_prices:
        assert price.gpu in catalog.gpus
        assert 0.05 <= price.usd_per_gpu_hour <= 25
    for (gpu, provider, tier), usd in by_offer.items():
        whole = by_offer.get((gpu, provider, "on_demand"))
        if whole is not None and tier in ("spot", "reserved_1y"):
            assert usd <= whole


def test_api_prices_rise_from_cached_to_fresh_to_output(catalog: Catalog) -> None:
    for price in catalog.api_prices.values():
        for period in price.periods:
            for rates in filter(None, (period.usd_per_mtok, period.long_context_usd_per_mtok)):
                assert 0 < rates.input <= rates.output
                assert rates.cache_read is None or rates.cache_read <= rates.input
                assert rates.cache_write_5m is None or rates.cache_write_5m >= rates.input
                if rates.cache_write_1h is not None:
                    assert rates.cache_write_5m is not None
                    assert rates.cache_write_1h > rates.cache_write_5m


def test_periods_of_a_price_do_not_overlap(catalog: Catalog) -> None:
    """On any day at most one rate holds, and today one does."""
    today = dt.date(2026, 11, 23)
    for price in catalog.api_prices.values():
        edges = {edge for period in price.periods for edge in (period.since, period.until) if edge}
        days = {edge + dt.timedelta(days=by) for edge in edges for by in (-1, 0, 1)} | {today}
        for day in days:
            holding = [
                period
                for period in price.periods
                if (period.since is None or period.since <= day)
                and (period.until is None or day <= period.until)
            ]
            assert len(holding) <= 1, (price.id, day)
            assert day != today or len(holding) == 1, price.id


def test_workloads_are_consistent(catalog: Catalog) -> None:
    """Shares are shares, percentiles rise, and a cache that forgets later finds no less."""
    for load in catalog.workloads.values():
        for stats in (load.input_tokens, load.output_tokens):
            rising = [v for v in (stats.p50, stats.p90, stats.p99) if v is not None]
            assert rising == sorted(rising)
            assert stats.mean > 0
        hits = [
            h for h in (load.prefix_hit_5m, load.prefix_hit_1h, load.prefix_hit_unbounded) if h is not None
        ]
        assert hits == sorted(hits)
        assert all(0 <= hit < 1 for hit in hits)
        assert 0 <= load.thinking_share < 1
        assert load.image_tokens <= load.input_tokens.mean
        assert load.requests_per_session >= 1


def test_calibrations_are_efficiencies(catalog: Catalog) -> None:
    """No kernel beats the hardware."""
    for calibration in catalog.calibrations.values():
        for kernel in calibration.kernels.values():
            assert 0 < kernel.bandwidth_efficiency <= 1
            assert 0 < kernel.flops_efficiency <= 1
            assert 0 <= kernel.t0_s < 1e-3
        assert 0 <= calibration.relative_band_low < 1
        assert calibration.measurements
