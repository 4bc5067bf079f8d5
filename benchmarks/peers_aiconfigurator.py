"""aiconfigurator's answers, in its own environment: questions as JSON lines on stdin, answers on stdout.

Run by ``peers_speed.py``, never by hand. Each answer carries the question's index and either the mean first
token and time per token in milliseconds, or why there is none.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys


def main() -> int:
    """Answer until stdin ends."""
    logging.disable(logging.CRITICAL)
    estimate = importlib.import_module("aiconfigurator.cli.api").cli_estimate  # not installed with us

    for line in sys.stdin:
        asked = json.loads(line)
        index = asked.pop("index")
        try:
            found = estimate(**asked)
            answer = {"index": index, "ttft_ms": found.ttft, "tpot_ms": found.tpot}
        except Exception as error:  # noqa: BLE001 - whatever it raises is its answer
            answer = {"index": index, "error": f"{type(error).__name__}: {error}"[:200]}
        sys.stdout.write("ANSWER " + json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
