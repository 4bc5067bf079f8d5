"""What the guard answers: asked of the guard itself, of the simulated engine and of real vLLM."""

from __future__ import annotations

from typing import NamedTuple

KEY = "a-secret-key"


class Case(NamedTuple):
    """A request and the guard's answer; None = it is passed on."""

    method: str
    path: str
    headers: dict[str, str]
    status: int | None


BEARER = {"Authorization": f"Bearer {KEY}"}
CASES = (
    # without a key nothing but health
    Case("GET", "/health", {}, None),
    Case("HEAD", "/health", {}, None),
    Case("POST", "/health", {}, 401),
    *(
        Case("GET", path, {}, 401)
        for path in ("/", "/v1/models", "/metrics", "/health/", "//health", "/docs", "/ping")
    ),
    Case("GET", "/health/../v1/models", {}, 401),
    Case("GET", "/%68ealth/x", {}, 401),
    *(
        Case("POST", path, {}, 401)
        for path in ("/v1/chat/completions", "/v1/messages", "/invocations", "/tokenize", "/scale_elastic_ep")
    ),
    # both kinds of clients
    Case("GET", "/v1/models", BEARER, None),
    Case("GET", "/v1/models", {"Authorization": f"bearer {KEY}"}, None),
    Case("GET", "/v1/models", {"x-api-key": KEY}, None),
    Case("GET", "/v1/models", {"X-Api-Key": KEY}, None),
    Case("GET", "/metrics", BEARER, None),
    # wrong keys, other schemes, other headers
    Case("GET", "/v1/models", {"Authorization": f"Basic {KEY}"}, 401),
    Case("GET", "/v1/models", {"Authorization": KEY}, 401),
    Case("GET", "/v1/models", {"Authorization": "Bearer"}, 401),
    Case("GET", "/v1/models", {"Authorization": f"Bearer {KEY}x"}, 401),
    Case("GET", "/v1/models", {"x-api-key": KEY[:-1]}, 401),
    Case("GET", "/v1/models", {"x-api-key": ""}, 401),
    Case("GET", "/v1/models", {"x-goog-api-key": KEY}, 401),
    # not for clients, whatever key they bring
    *(
        Case("POST", path, BEARER, 403)
        for path in (
            "/scale_elastic_ep", "/is_scaling_elastic_ep", "/collective_rpc", "/sleep", "/wake_up", "/pause",
            "/reset_prefix_cache", "/start_profile", "/update_weights", "/fault_tolerance/apply",
            "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/inference/v1/generate", "/sleep/",
        )
    ),
    Case("GET", "/server_info", BEARER, 403),
    Case("GET", "/kv_event_sources", BEARER, 403),
)  # fmt: skip


def name(case: Case) -> str:
    """For the report of a test run."""
    return f"{case.method} {case.path} {'+'.join(case.headers.values()) or 'no key'}"
