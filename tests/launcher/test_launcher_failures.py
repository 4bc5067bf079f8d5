"""Each known failure text, held against the table: kind, fallback and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.launcher.failures import Failure, classify

LOGS = Path(__file__).parent.parent / "logs"
ROWS = yaml.safe_load((Path(__file__).parent / "failure_lines.yaml").read_text())
HARMLESS = (
    "(APIServer pid=1) WARNING 11-23 10:00:00 [system_utils.py:255] Found ulimit of 20000. This can cause fd "
    "limit errors like `OSError: [Errno 24] Too many open files`."
)
ERROR = "(EngineCore pid=2) ERROR 11-23 10:00:00 [core.py:1510] "
WORKER = "(Worker_TP1 pid=4) ERROR 11-23 10:00:00 [multiproc_executor.py:953] "
TAIL = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"


@pytest.mark.parametrize(
    ("log", "kind", "trigger", "said"),
    [
        ("bad-flag", "bad_flag", None, "--nosuchflag 1"),
        ("context-does-not-fit", "kv_cache_too_small", "kv_cache_too_small", "3328"),
        ("context-too-long", "context_too_long", None, "--max-model-len"),
        ("model-not-cached", "model_not_found", None, "--model"),
        ("no-such-folder", "model_not_found", None, "--model"),
        ("no-weights", "weights_missing", None, "safetensors"),
        ("port-in-use", "port_in_use", None, "--port"),
        ("tool-parser-missing", "bad_flag", None, "--tool-call-parser"),
        ("heads-not-divisible", "shape_not_divisible", None, "3"),
    ],
)
def test_a_real_log_is_classified(log: str, kind: str, trigger: str | None, said: str) -> None:
    """Logs of real vLLM 0.32 runs that failed this way."""
    failure = classify((LOGS / f"vllm-0.32-cpu-{log}.log").read_text().splitlines(), 1)
    assert (failure.kind, failure.trigger) == (kind, trigger)
    assert said in failure.remedy


def test_a_real_engine_death_names_the_exception_that_caused_it() -> None:
    """MTP with prefix caching on CPU: the cause stands far above 'EngineCore encountered an issue'."""
    failure = classify((LOGS / "vllm-0.32-cpu-engine-death.log").read_text().splitlines(), 0)
    assert failure.cause == "TypeError: 'function' object is not subscriptable"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['kind']}: {row['line'][-40:]}")
def test_each_text_of_the_table_is_known(row: dict[str, str]) -> None:
    """One example of each failure, between harmless lines and vLLM's last words."""
    failure = classify([HARMLESS, row["line"], WORKER + '  File "x.py", line 1, in f', TAIL], 1)
    assert (failure.kind, failure.trigger) == (row["kind"], row["trigger"])
    assert row["remedy"] in failure.remedy


def test_running_out_of_memory_while_capturing_asks_for_fewer_graphs() -> None:
    """The same text in another phase has another remedy in the plan."""
    capturing = "Capturing CUDA graphs (FULL):  50%|#####     | 17/35 [00:02<00:02]"
    failure = classify([capturing, WORKER + "torch.OutOfMemoryError: CUDA out of memory. Tried", TAIL], 1)
    assert (failure.kind, failure.trigger) == ("out_of_memory", "cudagraph_failure")


def test_the_first_cause_wins() -> None:
    """What fails next fails because of it."""
    lines = [
        WORKER + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB.",
        WORKER + "RuntimeError: NCCL error in: x.cpp:1, remote process exited",
        TAIL,
    ]
    assert classify(lines, 1).kind == "out_of_memory"


@pytest.mark.parametrize(
    ("code", "kind", "transient"),
    [(0, "exited", True), (1, "exited", False), (-9, "killed", True), (-11, "crashed", True)],
)
def test_without_a_text_the_exit_code_speaks(code: int, kind: str, transient: bool) -> None:
    """An unrequested exit 0 is a crash; signal 9 is usually the kernel's out-of-memory killer."""
    failure = classify(["(APIServer pid=1) INFO 11-23 10:00:00 [a.py:1] all is well"], code)
    assert (failure.kind, failure.transient) == (kind, transient)


def test_a_users_mistake_and_a_broken_machine_exit_differently() -> None:
    """2 for a flag or path, 4 for an engine that cannot run here."""
    flag = classify(["vllm: error: unrecognized arguments: --x"], 2).to_error(log="/l")
    memory = classify([WORKER + "torch.OutOfMemoryError: CUDA out of memory."], 1).to_error(log="/l")
    assert isinstance(flag, BadInputError)
    assert isinstance(memory, UnavailableError)
    assert "/l" in memory.remedy


def test_a_long_line_is_cut() -> None:
    """Some causes carry a whole configuration."""
    assert len(classify(["ValueError: " + "x" * 9999], 1).cause) == 500


def test_an_unknown_exception_is_still_named() -> None:
    """The exception line itself is better than the wrapper at the end."""
    failure = classify([ERROR + "KeyError: 'layers.3.mlp'", TAIL], 1)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.cause) == ("exception", "KeyError: 'layers.3.mlp'")
