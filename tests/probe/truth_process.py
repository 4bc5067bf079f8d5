"""The truth server as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

SERVER = Path(__file__).parent / "truth_server.py"


class Truth:
    """A running truth server."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, str(SERVER), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def url(self, behaviour: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/{behaviour}"

    def told(self) -> dict[str, Any]:
        """What it did since it was last asked, by request id."""
        with urllib.request.urlopen(self.url("v1/truth")) as answer:
            told: dict[str, Any] = json.load(answer)
        return told

    def waited_s(self) -> float:
        """How long it has been ready to run and without a core, since it began."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[1]) / 1e9

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()
