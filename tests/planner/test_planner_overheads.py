"""Memory beside weights and cache, and the share that vLLM may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from qwenhost.errors import BadInputError
from qwenhost.plan import Parallelism
from qwenhost.planner.constants import Constants
from qwenhost.planner.overheads import EngineShape, capture_sizes, overheads, usable_bytes
from qwenhost.units import GIB

if TYPE_CHECKING:
    from qwenhost.facts import Architecture, Catalog


def shape(sequences: int = 256, batch: int = 8192, **more: object) -> EngineShape:
    return EngineShape(max_num_seqs=sequences, max_num_batched_tokens=batch, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sequences", "capability", "sizes"),
    [
        (1, 9.0, 2),  # up to 2: 1, 2
        (4, 9.0, 4),  # up to 8: 1, 2, 4, 8
        (64, 9.0, 19),  # up to 128: 1, 2, 4 and 16 multiples of 8
        (256, 9.0, 51),  # up to 512: 3 + 31 up to 248 + 17 from 256 to 512
        (1024, 9.0, 51),  # capped at 512
        (1024, 10.0, 83),  # capped at 1,024 on SM10x
    ],
)
def test_capture_sizes(sequences: int, capability: float, sizes: int) -> None:
    """1, 2, 4, then every 8 to 255, every 16 from 256, up to twice max_num_seqs."""
    assert capture_sizes(shape(sequences), capability) == sizes


def test_requested_memory_of_an_rtx_5090_log(catalog: Catalog) -> None:
    """32,607 MiB by NVML at 0.92: the log says 28.88 GiB were requested."""
    spec = catalog.gpus["rtx-5090"]
    got = usable_bytes(spec.memory_bytes, 0.92, Constants(spec, catalog.calibrations))
    assert got / GIB == pytest.approx(28.88, abs=0.02)


def test_terms_move_with_what_causes_them(catalog: Catalog, architecture: Architecture) -> None:
    """More sequences cost logits, vision costs activations at TP1, eager mode costs no graphs."""
    constants = Constants(catalog.gpus["h200"], catalog.calibrations)

    def terms(given: EngineShape, tp: int = 1) -> tuple[int, int]:
        found = overheads(architecture, Parallelism(tensor_parallel_size=tp), given, constants, 9.0)
        return found.activation_bytes, found.cudagraph_bytes

    assert terms(shape(1024))[0] > terms(shape(64))[0]
    assert terms(shape(64, vision=True))[0] > terms(shape(64, batch=2048, vision=False))[0]
    assert terms(shape(enforce_eager=True))[1] == 0
    # 1,024 rows of 248,320 logits at 14 bytes are 3.32 GiB, beside the base of 0.35 GiB.
    assert terms(shape(1024))[0] / GIB == pytest.approx(3.32 + 0.35, abs=0.01)


def test_runner_v2_keeps_penalty_counts_for_every_sequence(
    catalog: Catalog, architecture: Architecture
) -> None:
    """1,024 sequences x 248,320 tokens x (4 bytes + 1 bit) are 0.98 GiB more than in older versions."""
    constants = Constants(catalog.gpus["h200"], catalog.calibrations)
    new, old = (
        overheads(architecture, Parallelism(), shape(1024, v2_runner=v2), constants, 9.0).non_torch_bytes
        for v2 in (True, False)
    )
    assert new - old == 1024 * 248_320 * 4 + 1024 * 248_320 // 8


def test_vision_is_profiled_with_as_many_images_as_fill_a_batch(
    catalog: Catalog, architecture: Architecture
) -> None:
    """A model one wide has no activations of its own: 65,536 tokens are four of the largest images."""
    constants = Constants(catalog.gpus["h200"], catalog.calibrations)
    thin = msgspec.structs.replace(
        architecture, hidden_size=1, vocab_size=1, linear_num_key_heads=0, linear_num_value_heads=1,
        linear_value_head_dim=1,
    )  # fmt: skip
    one = constants["vision_profile_bytes"]
    for batch, images in ((8192, 1), (16384, 1), (65536, 4)):
        found = overheads(thin, Parallelism(), shape(1, batch), constants, 9.0)
        assert found.activation_bytes - constants["activation_base_bytes"] == pytest.approx(images * one)


def test_a_missing_constant_is_named(catalog: Catalog) -> None:
    """The error names the folder, the architecture and the key."""
    constants = Constants(catalog.gpus["h200"], catalog.calibrations)
    with pytest.raises(BadInputError, match=r"profiles/calibration \(hopper\): constants\.nonsense"):
        constants["nonsense"]
    with pytest.raises(BadInputError, match=r"kernels\.moe_fp2"):
        constants.kernel("moe_fp2")


def test_own_calibration_wins_over_the_architecture(catalog: Catalog) -> None:
    """GB10 is consumer Blackwell with constants of its own."""
    gb10 = Constants(catalog.gpus["gb10"], catalog.calibrations)
    assert (gb10.calibration.id, gb10.basis) == ("gb10", "assumed")
    assert gb10["step_time_multiplier"] == 0.948
    assert gb10["t_fix_s"] == 1.02e-3  # from the common row
