"""A candidate's flags: one ordered mapping that argv, config file and chart values are all made from.

Names are vLLM's, with underscores. What a plan relies on is named even where vLLM's own default is the
same today, so that another version cannot move it; what a plan leaves to vLLM (``auto``) is left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwenhost.plan import Candidate, EngineArgs, Parallelism

Flags = dict[str, Any]

LOOPBACK: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8000

# Values of these end in process lists, logs and files that people share.
SECRET_FLAGS: Final = frozenset({"api_key", "hf_token"})
_SECRET_ENV: Final = re.compile(r"(TOKEN|SECRET|PASSWORD|API_?KEY|_KEY)$", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FLAG: Final = re.compile(r"[a-z][a-z0-9_]*")


def vllm_flags(
    candidate: Candidate, *, model: str | None = None, host: str | None = None, port: int | None = None
) -> Flags:
    """Every flag of ``vllm serve`` for a candidate, in a stable order; the first is ``model``.

    Args:
        candidate: what to run.
        model: a local folder or another hub id in place of the checkpoint's; then no revision is pinned.
        host: address to listen on; loopback unless given, since vLLM's own default is every interface.
        port: 8000 unless given.

    Raises:
        BadInputError: ``extra`` holds a secret, repeats a named argument, or is not a flag's name.
    """
    checkpoint = candidate.checkpoint
    local = model is not None and model != checkpoint.repo_id
    flags: Flags = {"model": model or checkpoint.repo_id}
    if checkpoint.revision and not local:
        flags["revision"] = checkpoint.revision
    flags["served_model_name"] = checkpoint.repo_id
    flags["host"] = host or LOOPBACK
    flags["port"] = port or DEFAULT_PORT
    flags |= _parallel_flags(candidate.parallelism)
    flags |= _engine_flags(candidate.engine_args)
    return flags | _extra_flags(candidate.engine_args.extra, taken=flags)


def environment(candidate: Candidate) -> dict[str, str]:
    """The candidate's environment variables, sorted.

    Raises:
        BadInputError: one of them carries a secret, or has a name that no variable can have.
    """
    for name in candidate.vllm_env:
        if not _VARIABLE.fullmatch(name):
            raise BadInputError(
                f"vllm_env: {name!r} is not the name of a variable",
                remedy="Write letters, digits and underscores, and no digit first.",
            )
        if _SECRET_ENV.search(name):
            raise BadInputError(
                f"vllm_env holds {name}: a plan carries no secrets",
                remedy="Set it in the environment of the service, or in a file that only it may read.",
            )
    return dict(sorted(candidate.vllm_env.items()))


def _parallel_flags(parallelism: Parallelism) -> Flags:
    flags: Flags = {
        "tensor_parallel_size": parallelism.tensor_parallel_size,
        "pipeline_parallel_size": parallelism.pipeline_parallel_size,
        "data_parallel_size": parallelism.data_parallel_size,
        "enable_expert_parallel": parallelism.enable_expert_parallel,
    }
    if parallelism.decode_context_parallel_size > 1:
        flags["decode_context_parallel_size"] = parallelism.decode_context_parallel_size
    return flags


def _engine_flags(args: EngineArgs) -> Flags:
    flags: Flags = {
        "max_model_len": args.max_model_len,
        "max_num_seqs": args.max_num_seqs,
        "max_num_batched_tokens": args.max_num_batched_tokens,
        "gpu_memory_utilization": args.gpu_memory_utilization,
        "kv_cache_dtype": _unless_auto(args.kv_cache_dtype),
        "mamba_ssm_cache_dtype": _unless_auto(args.mamba_ssm_cache_dtype),
        "gdn_prefill_backend": args.gdn_prefill_backend,
        "moe_backend": _unless_auto(args.moe_backend),
        "enable_prefix_caching": args.enable_prefix_caching,
        "language_model_only": args.language_model_only,
        "enforce_eager": args.enforce_eager,
    }
    if args.speculative_config is not None:
        drafted = msgspec.structs.asdict(args.speculative_config)
        flags["speculative_config"] = {key: value for key, value in drafted.items() if value is not None}
    flags["reasoning_parser"] = args.reasoning_parser
    if args.tool_call_parser:
        flags["enable_auto_tool_choice"] = True
        flags["tool_call_parser"] = args.tool_call_parser
    return {name: value for name, value in flags.items() if value is not None}


def _unless_auto(value: str | None) -> str | None:
    return None if value == "auto" else value


def _extra_flags(extra: Mapping[str, Any], *, taken: Flags) -> Flags:
    flags: Flags = {}
    for name, value in extra.items():
        if name in SECRET_FLAGS:
            raise BadInputError(
                f"engine_args.extra holds {name}: a plan carries no secrets",
                remedy="Remove it; give keys by environment or file when the service is started.",
            )
        if name in taken and name != "served_model_name":
            raise BadInputError(
                f"engine_args.extra repeats {name}, which the plan already sets to {taken[name]!r}",
                remedy=f"Remove {name} from extra.",
            )
        if not _FLAG.fullmatch(name):
            raise BadInputError(
                f"engine_args.extra: {name!r} is not the name of a flag",
                remedy="Write vLLM's name with underscores, for example mm_encoder_tp_mode.",
            )
        if value is not None:
            flags[name] = value
    return flags
