"""Formats for one machine without containers: a command, a config file, variables, a unit."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import yaml

from qwenhost.errors import BadInputError
from qwenhost.render.argv import text_of, vllm_argv
from qwenhost.render.flags import environment, vllm_flags
from qwenhost.render.header import header
from qwenhost.render.target import ENV_FILE

if TYPE_CHECKING:
    from qwenhost.plan import Plan
    from qwenhost.render.flags import Flags
    from qwenhost.render.target import Target


def argv_line(plan: Plan, target: Target) -> str:
    """One line for a shell, the plan's variables in front."""
    argv = vllm_argv(plan.chosen, model=target.model, host=target.host, port=target.port)
    variables = [f"{name}={value}" for name, value in environment(plan.chosen).items()]
    words = ["env", *variables, *argv] if variables else argv
    return header(plan) + shlex.join(words) + "\n"


def config_file(plan: Plan, target: Target) -> str:
    """YAML for ``vllm serve --config FILE``."""
    flags = vllm_flags(plan.chosen, model=target.model, host=target.host, port=target.port)
    variables = environment(plan.chosen)
    needs = [f"Set in its environment: {shlex.join(f'{k}={v}' for k, v in variables.items())}"]
    return header(plan, "Run: vllm serve --config FILE.yaml", *(needs if variables else ())) + dump(
        config_of(flags)
    )


def config_of(flags: Flags) -> dict[str, Any]:
    """Flags as vLLM's config file has them.

    A false switch becomes ``no-x: true``: vLLM drops ``x: false`` without a word where the negative
    option goes by another name. List items that are mappings become JSON, which vLLM would not do.
    """
    config: dict[str, Any] = {}
    for name, value in flags.items():
        key = name.replace("_", "-")
        if value is False:
            config[f"no-{key}"] = True
        elif isinstance(value, list | tuple):
            config[key] = [text_of(v) if isinstance(v, bool | Mapping | list) else v for v in value]
        else:
            config[key] = value
    return config


def env_file(plan: Plan, target: Target) -> str:
    """``NAME=value`` lines, for ``docker run --env-file`` and systemd's ``EnvironmentFile``.

    Raises:
        BadInputError: a value that such a file cannot hold.
    """
    del target
    variables = environment(plan.chosen)
    for name, value in variables.items():
        if "\n" in value:
            raise BadInputError(
                f"vllm_env {name} has a line break, which an env file cannot hold",
                remedy="Write the value on one line.",
            )
    none = () if variables else ("This plan needs no variables.",)
    return header(plan, *none) + "".join(f"{name}={value}\n" for name, value in variables.items())


def systemd_unit(plan: Plan, target: Target) -> str:
    """A unit that runs ``qwenhost serve``, which applies the plan's flags and variables itself."""
    command = [
        target.executable,
        "serve",
        target.plan_path,
        "--host",
        target.host,
        "--port",
        str(target.port),
    ]
    if target.model:
        command += ["--model", target.model]
    credential = "" if target.is_loopback else "LoadCredential=api-key:/etc/qwenhost/api-key\n"
    if credential:
        command += ["--api-key-file", "%d/api-key"]
    notes = (
        "Runs as a user who must exist and be able to read the plan: useradd --system qwenhost",
        f"HF_TOKEN=... and other secrets belong to /etc/qwenhost/{ENV_FILE} (mode 600).",
        "Started means: the model has answered a first completion. qwenhost tells systemd, and is killed and",
        "started again should its own loop hang for WatchdogSec; it watches the engine itself.",
        *(("The API key is read from /etc/qwenhost/api-key (mode 600).",) if credential else ()),
    )
    return header(plan, *notes) + _UNIT.format(
        description=_unit_text(f"{plan.chosen.checkpoint.repo_id} on vLLM ({plan.chosen.parallelism.label})"),
        credential=credential,
        command=" ".join(_unit_word(word) for word in command),
        env_file=f"/etc/qwenhost/{ENV_FILE}",
    )


_UNIT: Final = """\
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target nvidia-persistenced.service

[Service]
Type=notify
NotifyAccess=main
WatchdogSec=60
TimeoutStartSec=infinity
ExecStart={command}
{credential}EnvironmentFile=-{env_file}
User=qwenhost
StateDirectory=qwenhost
CacheDirectory=qwenhost
Environment=HOME=%S/qwenhost HF_HOME=%C/qwenhost/huggingface VLLM_CACHE_ROOT=%C/qwenhost/vllm
Restart=on-failure
RestartSec=30
RestartPreventExitStatus=2 3
KillMode=mixed
TimeoutStopSec=120
LimitNOFILE=65536
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full

[Install]
WantedBy=multi-user.target
"""


def _unit_text(text: str) -> str:
    return " ".join(text.split()).replace("%", "%%")


def _unit_word(word: str) -> str:
    """One word of ``ExecStart``, quoted by systemd's rules; its own ``%d`` is kept."""
    escaped = word if word == "%d/api-key" else word.replace("%", "%%")
    escaped = escaped.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    # A line break would end the setting, and what follows would be one of its own.
    escaped = re.sub(r"[\x01-\x1f\x7f]", lambda found: f"\\x{ord(found.group()):02x}", escaped)
    plain = re.fullmatch(r"[^\s'\";\\]+", escaped)
    return escaped if plain else f'"{escaped}"'


def dump(value: Any) -> str:
    """YAML in the order given, without anchors and without folding long lines."""
    text: str = yaml.dump(
        value,
        Dumper=_PlainDumper,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
        default_flow_style=False,
    )
    return text


class _PlainDumper(yaml.SafeDumper):
    """No ``&id001``, and quotes where another YAML reader could see a number (``1e5``, ``0.33.0``)."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """A string; the readers of Helm and compose follow other versions of YAML than PyYAML."""
        if "\n" in text:
            return self.represent_scalar("tag:yaml.org,2002:str", text, style="|")
        style = "'" if re.match(r"[-+.0-9]", text) and not text.startswith("--") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value again where it occurs twice."""
        del data
        return True


_PlainDumper.add_representer(str, _PlainDumper.represent_text)
