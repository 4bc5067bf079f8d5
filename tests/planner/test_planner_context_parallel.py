"""Decode context parallelism and the GDN prefill backend, at points vLLM 0.33's own code gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qwenhost.planner.cache import CacheOptions, block_layout
from qwenhost.planner.rules import runs_flashinfer_gdn
from qwenhost.units import GIB

if TYPE_CHECKING:
    from qwenhost.facts import Architecture, Catalog


# At 40 GiB and 262,144 tokens: (TP, DCP, drafts) -> blocks, blocks charged, tokens logged.
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((4, 1, 0), (3212, 250, 3_368_026)),
        ((4, 2, 0), (3212, 130, 6_476_973)),
        ((8, 2, 0), (6068, 237, 6_711_771)),
        ((8, 4, 0), (6068, 123, 12_932_437)),
        ((8, 4, 1), (5601, 126, 11_652_924)),
    ],
)
def test_ranks_that_hold_different_tokens_replace_copies_of_a_head(
    architecture: Architecture, options: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    """The same blocks, each standing for as many more tokens; states are not divided."""
    tp, dcp, drafts = options
    layout = block_layout(
        architecture,
        CacheOptions(
            tensor_parallel_size=tp,
            decode_context_parallel_size=dcp,
            num_speculative_tokens=drafts,
            flashinfer_gdn=True,
        ),
    )
    pool = layout.pool(40 * GIB, 262144)
    assert (pool.num_blocks, layout.blocks_charged(262144), pool.tokens) == expected


@pytest.mark.parametrize(
    ("gpu", "backend", "runs"),
    [
        ("h100-80gb", None, True),
        ("h100-80gb", "triton", False),
        ("b200", None, True),
        ("b200", "cutedsl", False),
        ("gb10", None, True),
        ("a100-80gb", None, False),
        ("a100-80gb", "flashinfer", False),  # asked for, not there: vLLM runs Triton without a word
        ("l40s", "flashinfer", False),
        ("mi300x", "flashinfer", False),
    ],
)
def test_flashinfer_prefill_runs_where_the_gpu_has_it(
    catalog: Catalog, gpu: str, backend: str | None, *, runs: bool
) -> None:
    """Asking for it does not make it run."""
    assert runs_flashinfer_gdn(catalog.gpus[gpu], backend, "13.0") is runs
