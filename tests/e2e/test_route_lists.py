"""Which of vLLM's routes are for clients: each one in both versions' sources is on one side or the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from e2e import engine_env, vllm_sources
from qwenhost.launcher.engine_side.qwenhost_key_guard import is_for_clients

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

# Folders of vllm/entrypoints, by what they serve. A folder that a new version adds is in neither.
FOR_CLIENTS = (
    "openai", "anthropic", "serve/tokenize", "serve/instrumentator/health", "serve/instrumentator/basic",
    "serve/sagemaker", "generate", "speech_to_text",
)  # fmt: skip
SHUT = (
    "serve/dev", "serve/elastic_ep", "serve/fault_tolerance", "serve/profile", "serve/lora", "rl",
    "scale_out/token",
)  # fmt: skip
# Of models that embed, rank or classify, which this one does not; and of Cohere's API.
OTHER_MODELS = ("pooling", "cohere")
EXCEPTIONS = {"/kv_event_sources": False, "/v1/systemone": True}
_ROUTE = re.compile(r"router\.(?:get|post|put|delete|patch|add_api_route)\(\s*\"(/[^\"]*)\"")


def routes(root: Path) -> dict[str, str]:
    """Path -> the file below ``entrypoints`` that registers it."""
    found = {}
    for path in sorted((root / "entrypoints").rglob("*.py")):
        for route in _ROUTE.findall(path.read_text(errors="replace")):
            found.setdefault(route, str(path.relative_to(root / "entrypoints")))
    return found


@pytest.mark.parametrize("version", [engine_env.VLLM_VERSION, vllm_sources.VLLM_VERSION])
def test_every_route_is_for_clients_or_shut(vllm_bin: str, version: str) -> None:
    """Scaling, profiling, sleeping, reloading and adapters are shut; all of the inference is open."""
    if version == engine_env.VLLM_VERSION:
        root = next(Path(vllm_bin).parents[1].glob("lib/python3.*/site-packages/vllm"))
    else:
        root = vllm_sources.build() / "vllm"
    known = routes(root)
    assert len(known) > 40
    wrong, unknown = [], []
    for route, file in known.items():
        if route in EXCEPTIONS:
            expected = EXCEPTIONS[route]
        elif file.startswith(SHUT):
            expected = False
        elif file.startswith(FOR_CLIENTS):
            expected = True
        elif file.startswith(OTHER_MODELS) or route.startswith("/v1/"):
            continue
        else:
            unknown.append((route, file))
            continue
        if is_for_clients(re.sub(r"\{.*?\}", "x", route)) != expected:
            wrong.append((route, file))
    assert (wrong, unknown) == ([], [])
