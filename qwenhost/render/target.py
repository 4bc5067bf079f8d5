"""Where and how the rendered thing will run, as far as the plan does not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qwenhost.render.flags import DEFAULT_PORT, LOOPBACK

if TYPE_CHECKING:
    from qwenhost.plan import Plan

ENV_FILE: Final = "qwenhost.env"
_LOOPBACK_NAMES: Final = frozenset({LOOPBACK, "localhost", "::1"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The surroundings; every field has a default that is safe on one machine."""

    model: str | None = None
    """A local folder or another hub id in place of the checkpoint's."""
    host: str = LOOPBACK
    """Address on the machine; containers listen inside and publish there."""
    port: int = DEFAULT_PORT
    image: str | None = None
    """Container image; vLLM's own of the plan's version unless given."""
    plan_path: str = "/etc/qwenhost/plan.json"
    """Where the plan lies for the unit."""
    executable: str = "/usr/local/bin/qwenhost"
    """The command for the unit."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in _LOOPBACK_NAMES

    @property
    def published(self) -> str:
        """``127.0.0.1:8000:8000`` as docker publishes a container's port."""
        return self.published_of(0)

    def published_of(self, engine: int) -> str:
        """The same of one of several engines: the first has the port, the others those that follow."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port + engine}:{DEFAULT_PORT}"

    @property
    def local_model(self) -> str | None:
        """The model's folder, where it is one."""
        return self.model if self.model is not None and self.model.startswith("/") else None

    def image_for(self, plan: Plan) -> str:
        """The image, pinned to the vLLM version that the plan is for."""
        return self.image or f"vllm/vllm-openai:v{plan.inputs.vllm_version}"
