"""The texts by which failures are known: pattern, remedy, and what may help.

vLLM's own are held against its sources by ``tests/e2e/test_log_texts.py``.
"""

from __future__ import annotations

from typing import Final

from qwenhost.launcher import rules_machine, rules_setup
from qwenhost.launcher.rule import Rank, rule

RESTART: Final = "The supervisor restarts it; if it comes again, report the log to vLLM."

RULES: Final = (
    *rules_machine.RULES,
    *rules_setup.RULES,
    # --- consequences: believed when nothing above was logged
    rule(
        "start_timed_out",
        r"Timed out waiting for engine core processes to start",
        "Raise VLLM_ENGINE_READY_TIMEOUT_S if the disk is slow; see the log for where it stood.",
        transient=True,
        rank=Rank.CONSEQUENCE,
    ),
    rule(
        "worker_died",
        r"Worker proc \S+ died unexpectedly",
        RESTART,
        transient=True,
        rank=Rank.CONSEQUENCE,
    ),
    rule(
        "engine_died",
        r"EngineCore encountered (?:a fatal error|an issue)|EngineDeadError",
        RESTART,
        transient=True,
        rank=Rank.CONSEQUENCE,
    ),
    rule(
        "start_failed",
        r"Engine core initialization failed|WorkerProc initialization failed",
        "The log above the last lines names the cause.",
        rank=Rank.WRAPPER,
    ),
    # Any exception: after the tables so that a known text has its own name.
    rule(
        "exception",
        r"^(?!KeyboardInterrupt)(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception)(?:: .*)?$",
        "Not a failure this version knows: search vLLM's issues for the line.",
        rank=Rank.EXCEPTION,
    ),
)
