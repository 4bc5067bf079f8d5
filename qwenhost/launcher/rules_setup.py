"""Failures of what was asked for: kernels, shapes, flags, paths, weights, the installation."""

from __future__ import annotations

from typing import Final

from qwenhost.launcher.rule import rule

_LOWER_TP: Final = "Plan with a smaller --tensor-parallel-size, or with expert parallelism."

RULES: Final = (
    # --- kernels and shapes
    rule(
        "checkpoint_not_supported",
        r"quantization method (?P<method>\S+) is not supported for the current GPU",
        "Plan with another checkpoint: this GPU has no kernels for {method}.",
        trigger="kernel_failure",
    ),
    rule(
        "kernel_failure",
        r"fp8e4nv not supported|Unsupported lhs dtype fp8e4nv",
        "Start with --extra-arg --moe-backend --extra-arg marlin, or plan with another checkpoint.",
        trigger="kernel_failure",
    ),
    rule(
        "kernel_failure",
        r"No valid attention backend found|Selected backend \S+ is not valid for this configuration",
        "Leave out --attention-backend and take the KV-cache type auto.",
        trigger="kernel_failure",
    ),
    rule(
        "kernel_failure",
        r"no kernel image is available|illegal memory access|CUDA error: invalid (?:argument|configuration)",
        "A kernel does not run on this GPU: plan with another checkpoint or --gdn-prefill-backend triton.",
        trigger="kernel_failure",
        transient=True,
    ),
    rule(
        "shape_not_divisible",
        r"is not divisible by weight quantization block|Weight (?:in|out)put_size_per_partition = ",
        _LOWER_TP,
    ),
    rule(
        "shape_not_divisible",
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size "
        r"\((?P<tp>\d+)\)",
        "{heads} attention heads cannot be split by {tp}: use a --tensor-parallel-size that divides them.",
        bad_input=True,
    ),
    rule(
        "too_few_gpus",
        r"World size \((?P<world>\d+)\) is larger than the number of available GPUs \((?P<have>\d+)\)",
        "The plan needs {world} GPUs and vLLM sees {have}: plan again on this machine.",
        bad_input=True,
    ),
    # --- flags and paths
    rule(
        "bad_flag",
        r"error: unrecognized arguments: (?P<flags>.*)",
        "This vLLM does not know {flags}: leave it out, or use the vLLM version of the plan.",
        bad_input=True,
    ),
    rule(
        "bad_flag",
        r"^[\w. -]+: error: (?P<what>.*)",
        "Correct the flag: {what}.",
        bad_input=True,
    ),
    rule(
        "bad_flag",
        r"--enable-auto-tool-choice requires --tool-call-parser",
        "Give --tool-call-parser too.",
        bad_input=True,
    ),
    rule(
        "context_too_long",
        r"User-specified max_model_len \((?P<wanted>\d+)\) is greater than the derived max_model_len",
        "Lower --max-model-len, or extend the context with YaRN as the model card says.",
        bad_input=True,
    ),
    rule(
        "port_in_use",
        r"\[Errno 98\].*[Aa]ddress already in use",
        "Choose another --port, or stop what listens there.",
        bad_input=True,
    ),
    rule(
        "host_not_local",
        r"\[Errno 99\] Cannot assign requested address",
        "--host must be an address of this machine.",
        bad_input=True,
    ),
    # --- weights
    rule(
        "download_refused",
        r"GatedRepoError|401 Client Error|403 Client Error",
        "Accept the model's terms on its page and set HF_TOKEN.",
    ),
    rule(
        "model_not_found",
        r"(?:Local|Remote)EntryNotFoundError|RepositoryNotFoundError|RevisionNotFoundError"
        r"|Repo id must be in the form",
        "Check the repository name or give an existing directory with --model.",
        bad_input=True,
    ),
    rule(
        "weights_missing",
        r"Cannot find any model weights with",
        "Fetch the weights again; the directory holds no safetensors.",
        bad_input=True,
    ),
    rule(
        "weights_damaged",
        r"SafetensorError|Error while deserializing header|MetadataIncompleteBuffer|HeaderTooLarge",
        "A shard is damaged: delete it and start again, it is fetched anew.",
    ),
    rule(
        "shared_memory_full",
        r"No space left on device.*?/dev/shm|Bus error|unable to (?:open|resize|allocate) shared memory",
        "Enlarge /dev/shm (docker: --shm-size 16g or --ipc host).",
    ),
    rule("disk_full", r"No space left on device", "Free disk space at the model cache."),
    rule(
        "too_many_open_files",
        r"Too many open files",
        "Raise the limit: ulimit -n 65536.",
    ),
    # --- installation
    rule(
        "vllm_too_old",
        r"Model architectures \[.*\] are not supported for now|does not recognize this architecture",
        "Install the vLLM version of the plan: qwenhost doctor",
    ),
    rule(
        "vllm_broken",
        r"Model architectures \[.*\] failed to be inspected|operator torchvision::\w+ does not exist"
        r"|No package metadata was found for vllm|undefined symbol: ",
        "vLLM's installation does not fit together; install it anew in an environment of its own.",
    ),
)
