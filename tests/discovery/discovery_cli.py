"""One run of the command line, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What one run of ``qwenhost inspect`` gave."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def node(self) -> dict[str, Any]:
        """The JSON on stdout."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found


def run_cli(*arguments: str, env: dict[str, str]) -> Outcome:
    """Run the command line in a process of its own, as a user would."""
    command = [sys.executable, "-W", "error", "-m", "qwenhost.cli.main", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return Outcome(done.returncode, done.stdout, done.stderr)
