"""Ask an oracle: a script that runs vLLM's own code under the engine's Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e import engine_env, vllm_sources


def ask(script: str, request: Any, *, engine_release: bool = False) -> Any:
    """Hand ``request`` to a script of this folder as JSON and return its JSON answer.

    It runs against the sources of the vLLM that plans are made for, or with ``engine_release`` against
    the engine's own, older vLLM. Without engine or sources the test says so loudly, and fails where
    they are required.
    """
    try:
        engine_env.build(progress=_say)
        environment = engine_env._clean_env()
        if not engine_release:
            environment["PYTHONPATH"] = str(vllm_sources.build(progress=_say))
    except (engine_env.EngineBuildError, vllm_sources.SourcesError) as error:
        said = f"THE PLANNER WAS NOT COMPARED WITH vLLM: {error}"
        _say(f"\n{'!' * 100}\n{said}\n{'!' * 100}")
        if os.environ.get("QWENHOST_REQUIRE_ENGINE") == "1":
            pytest.fail(said)
        pytest.skip(said)
    command = [str(engine_env.engine_python()), str(Path(__file__).parent / script)]
    text = json.dumps(request)
    done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
