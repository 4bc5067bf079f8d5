"""Faults of vLLM and its kernels that meet a combination, each said with its link; none of them stops it.

What vLLM refuses, or must not be run, is a rule (``planner.rules``); what a flag avoids is set there too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.planner.rules import FP8_KV_LINK, issue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qwenhost.facts import Checkpoint, GpuSpec
    from qwenhost.plan import Parallelism


class Combination(NamedTuple):
    """What decides whether a fault meets it."""

    checkpoint: Checkpoint
    expert_compute: str
    """Arithmetic of the routed experts: ``bf16`` (also of int4 weights), ``fp8``, ``fp4``."""
    spec: GpuSpec
    layout: Parallelism
    kv_cache_dtype: str
    num_speculative_tokens: int
    vllm_version: tuple[int, int]

    @property
    def is_nvidia(self) -> bool:
        """Whether CUDA kernels run."""
        return self.spec.vendor == "nvidia"

    @property
    def fp8_cache(self) -> bool:
        """Whether KV is stored in FP8."""
        return self.kv_cache_dtype.startswith("fp8")


class KnownIssue(NamedTuple):
    """One fault."""

    meets: Callable[[Combination], bool]
    text: str
    link: str


KNOWN_ISSUES: Final = (
    KnownIssue(
        lambda c: c.expert_compute == "fp4" and c.is_nvidia,
        "Users report wrong answers of NVFP4 weights with some kernels: compare with FP8 on your own prompts",
        issue(36094),
    ),
    KnownIssue(
        lambda c: c.is_nvidia and c.fp8_cache and c.spec.compute_capability < 8.9,
        "This GPU has no FP8 arithmetic: an FP8 cache saves memory and costs time",
        issue(54318),
    ),
    KnownIssue(
        lambda c: c.fp8_cache and not c.checkpoint.declared_kv_cache_dtype,
        "SGLang's cookbook warns of reasoning quality with an FP8 cache without scales",
        FP8_KV_LINK,
    ),
    KnownIssue(
        lambda c: (
            c.is_nvidia
            and 9.0 <= c.spec.compute_capability < 10.0
            and c.fp8_cache
            and c.num_speculative_tokens >= 3
        ),
        "Three drafts or more with an FP8 cache failed to compile in FlashInfer attention on earlier vLLM",
        issue(33364),
    ),
    KnownIssue(
        lambda c: c.num_speculative_tokens > 0,
        "With drafts vLLM ignores min_p and logit_bias of a request, and says so only in its log",
        "https://docs.vllm.ai/en/stable/features/spec_decode/",
    ),
    KnownIssue(
        lambda c: c.num_speculative_tokens > 0 and c.spec.vendor == "amd",
        "Drafts on AMD GPUs are under development; the plan takes them only where they are pinned",
        issue(53012),
    ),
    KnownIssue(
        lambda c: c.spec.vendor == "amd" and c.layout.enable_expert_parallel,
        "Expert parallelism with data parallelism and expert balancing crashed in vLLM's AMD tests",
        issue(53012),
    ),
    KnownIssue(
        lambda c: (
            c.is_nvidia
            and c.layout.tensor_parallel_size == 4
            and c.checkpoint.architecture == "Qwen3.5-122B-A10B"
            and c.vllm_version < (0, 30)
        ),
        "An illegal memory access of this model at TP4 is reported for vLLM before 0.30 and still open",
        issue(51297),
    ),
    KnownIssue(
        lambda c: (
            c.layout.decode_context_parallel_size > 1
            and c.num_speculative_tokens > 0
            and c.spec.compute_capability >= 10.0
        ),
        "FlashInfer attention has whole CUDA graphs for decode context parallelism only without drafts",
        "https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/attention/backends/flashinfer.py#L1183",
    ),
)


def known_issues(combination: Combination) -> Iterator[str]:
    """A sentence with its link for each fault that meets it."""
    for one in KNOWN_ISSUES:
        if one.meets(combination):
            yield f"{one.text} ({one.link})."
