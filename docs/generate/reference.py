"""The reference pages and JSON Schemas, from the program itself."""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from qwenhost.cli.main import COMMANDS, cli
from qwenhost.cost.advice import Advice
from qwenhost.cost.comparison import Comparison
from qwenhost.cost.quote import Quote
from qwenhost.facts import Basis
from qwenhost.launcher.state import ServiceState
from qwenhost.measurements import Measurements
from qwenhost.node import Node
from qwenhost.plan import Plan
from qwenhost.planner.calibration import RunError, Scale
from qwenhost.planner.check import Launch
from qwenhost.planner.differences import Difference
from qwenhost.probe.sweep import Sweep
from qwenhost.profiles.sheet import ROW_TYPES, id_keys
from qwenhost.simulate.fleet_rate import RateSearch
from qwenhost.simulate.fleet_result import FleetRun
from qwenhost.simulate.fleet_search import FleetSearch
from qwenhost.simulate.virtual import Simulation
from qwenhost.token_counts import TokenCounts
from qwenhost.tuning.state import TuneState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REFERENCE = Path(__file__).parent.parent / "reference"
WIDTH = 96
DOCUMENTS: dict[str, tuple[type, str]] = {
    "qwenhost.plan/1": (Plan, "`plan --json`, `plan --save`"),
    "qwenhost.measurements/1": (Measurements, "`probe --json`, `probe --save`"),
    "qwenhost.sweep/1": (Sweep, "`probe --sweep --json`"),
    "qwenhost.comparison/1": (Comparison, "`compare --json`"),
    "qwenhost.advice/1": (Advice, "`advise --json`"),
    "qwenhost.cost/1": (Quote, "`cost --json`"),
    "qwenhost.simulation/1": (Simulation, "`simulate --json`, one engine under one load"),
    "qwenhost.fleet/1": (FleetRun, "`simulate --replicas ... --json`"),
    "qwenhost.fleet_search/1": (FleetSearch, "`simulate --find-fleet --json`"),
    "qwenhost.token_counts/1": (TokenCounts, "`count-tokens --json`"),
    "qwenhost.node/1": (Node, "`inspect --json`"),
    "qwenhost.service/1": (ServiceState, "`status --json`, `state.json`"),
    "qwenhost.tune/1": (TuneState, "`tune --json`, `tune-out/state.json`"),
}
RATES = {"simulated": bool, "basis": Basis, "engine": str, "gpus": str, "workload": str, "seed": int}
# Of documents that a command puts together: (what it is, who prints it, types by key).
COMPOSED: dict[str, tuple[str, str, Mapping[str, Any]]] = {
    "qwenhost.check/1": (
        "A start-up log against the prediction for its flags.", "`plan --check LOG --json`",
        {"log": str, "node": str, "launch": Launch, "differences": tuple[Difference, ...]},
    ),
    "qwenhost.rate_search/1": (
        "The highest rate at which one replica keeps the SLO.", "`simulate --slo ... --json`",
        RATES | {"search": RateSearch},
    ),
    "qwenhost.render/1": (
        "A plan in another form.", "`render --json`",
        {"format": str, "vllm_version": str, "vllm_argv": tuple[str, ...], "vllm_env": dict[str, str],
         "text": str},
    ),
    "qwenhost.calibration/1": (
        "What runs taught the speed model.", "`calibrate --json`",
        {"id": str, "gpu": str, "vllm_version": str, "runs": tuple[str, ...], "scales": tuple[Scale, ...],
         "errors": tuple[RunError, ...], "band": dict[str, float], "warnings": tuple[str, ...],
         "path": str | None, "dry_run": bool},
    ),
    "qwenhost.completion/1": (
        "What makes a shell complete commands.", "`completion SHELL --json`", {"shell": str, "script": str},
    ),
    "qwenhost.k8s-plan/1": (
        "Plans for a cluster's kinds of GPUs, and the chart's values.", "`k8s plan --json`",
        {"pools": tuple[dict[str, Any], ...], "unfit": tuple[dict[str, str], ...],
         "refused": tuple[dict[str, Any], ...], "values": str},
    ),
    "qwenhost.k8s-check/1": (
        "What is wrong with manifests.", "`k8s check --json`",
        {"objects": int, "errors": int, "warnings": int, "findings": tuple[dict[str, Any], ...]},
    ),
}  # fmt: skip


def commands() -> str:
    """Every command's help, subcommands after their group."""
    parts = ["# Commands", "What `--help` prints. Made by `make docs`."]
    top = click.Context(cli, info_name="qwenhost", terminal_width=WIDTH)
    parts += _helps(cli, top, "qwenhost", 2)
    for name in COMMANDS:
        found = cli.get_command(top, name)
        assert found is not None  # noqa: S101 - listed
        parts += _helps(found, click.Context(found, top, name, terminal_width=WIDTH), name, 2)
    return "\n\n".join(parts) + "\n"


def _helps(command: click.Command, ctx: click.Context, name: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}"
    text = "\n".join(line.rstrip() for line in command.get_help(ctx).splitlines())
    yield f"```text\n{text}\n```"
    if isinstance(command, click.Group) and command is not cli:
        for sub in command.list_commands(ctx):
            found = command.get_command(ctx, sub)
            assert found is not None  # noqa: S101 - listed
            inner = click.Context(found, ctx, sub, terminal_width=WIDTH)
            yield from _helps(found, inner, f"{name} {sub}", level + 1)


def profiles() -> str:
    """Every field of every kind of profile."""
    schemas, components = msgspec.json.schema_components(ROW_TYPES.values(), ref_template="#{name}")
    kinds = [schema["$ref"][1:] for schema in schemas]
    parts = [
        "# Profile fields",
        (
            "A profile file maps kinds to lists of rows. `qwenhost profiles schema KIND` prints its "
            "JSON Schema, `qwenhost profiles check DIR` finds mistakes. Made by `make docs`."
        ),
    ]
    for kind, name in zip(ROW_TYPES, kinds, strict=True):
        keys = ", ".join(f"`{key}`" for key in id_keys(kind))
        parts += [
            f"## {kind}",
            f"{_text(components[name])} A row is known by {keys}.",
            _table(name, components),
        ]
    parts.append("## Parts of rows")
    for name in sorted(set(components) - set(kinds)):
        parts += [f"### {name}", _text(components[name]), _table(name, components)]
    return "\n\n".join(part for part in parts if part) + "\n"


def documents() -> dict[str, str]:
    """One JSON Schema for each document that a command prints, and the page that lists them."""
    made, rows = {}, []
    for name, (type_, printed) in DOCUMENTS.items():
        (schema,), components = msgspec.json.schema_components([type_], ref_template="#/$defs/{name}")
        made[_file(name)] = _json({"title": name, **schema, "$defs": components})
        rows.append(f"| [`{name}`]({_file(name)}) | {printed} | {_text(components[type_.__name__])} |")
    for name, (what, printed, keys) in COMPOSED.items():
        made[_file(name)] = _json(_composed(name, keys))
        rows.append(f"| [`{name}`]({_file(name)}) | {printed} | {what} |")
    made["json.md"] = "\n".join(
        (
            "# JSON documents", "",
            ("Every command has `--json`. What it prints names its schema; the number grows when a key "
            "changes its meaning or goes, and another number is refused with what was expected. Keys may "
            "come under the same number. Commands not listed print small objects whose keys speak for "
            "themselves. Made by `make docs`."),
            "", "| schema | printed by | what it is |", "|---|---|---|", *rows, "",
        )
    )  # fmt: skip
    return made


def _composed(name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    shapes, components = msgspec.json.schema_components(keys.values(), ref_template="#/$defs/{name}")
    if "Difference" in components:  # a property that is printed as well
        components["Difference"]["properties"]["relative"] = {"type": "number"}
    return {
        "title": name,
        "type": "object",
        "properties": {"schema": {"const": name}, **dict(zip(keys, shapes, strict=True))},
        "required": ["schema", *keys],
        "$defs": components,
    }


def _file(name: str) -> str:
    return f"schemas/{name.removeprefix('qwenhost.').replace('/', '-')}.json"


def _json(schema: Mapping[str, Any]) -> str:
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | dict(schema), indent=1, sort_keys=False) + "\n"


def _text(schema: Mapping[str, Any]) -> str:
    return " ".join(schema.get("description", "").split("\n\n")[0].split())


def _table(name: str, components: Mapping[str, Any]) -> str:
    schema = components[name]
    if "properties" not in schema:
        return ""
    said, required = _field_docs(), schema.get("required", ())
    lines = ["| field | type | default | |", "|---|---|---|---|"]
    for field, shape in schema["properties"].items():
        default = "required" if field in required else f"`{json.dumps(shape.get('default'))}`"
        words = said.get(name, {}).get(field, "").replace("|", "\\|")
        lines.append(f"| `{field}` | {_type(shape)} | {default} | {words} |")
    return "\n".join(lines)


def _type(shape: Mapping[str, Any]) -> str:
    if "$ref" in shape:
        name = shape["$ref"][1:]
        return f"[{name}](#{name.lower()})"
    if "enum" in shape:
        return ", ".join(f"`{value}`" for value in shape["enum"])
    if "anyOf" in shape:
        return " or ".join(_type(one) for one in shape["anyOf"])
    if shape.get("type") == "array":
        return f"list of {_type(shape['items'])}" if isinstance(shape.get("items"), dict) else "list"
    if shape.get("type") == "object":
        inner = shape.get("additionalProperties")
        return f"map to {_type(inner)}" if isinstance(inner, dict) else "map"
    return str(shape.get("format") or shape.get("type", "any"))


def _field_docs() -> dict[str, dict[str, str]]:
    """The strings below the fields of every fact, which Python itself forgets."""
    modules = [module for name, module in sys.modules.items() if name.startswith("qwenhost.facts")]
    found: dict[str, dict[str, str]] = {}
    for module in modules:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ClassDef):
                found[node.name] = _strings_below(node)
    return found


def _strings_below(node: ast.ClassDef) -> dict[str, str]:
    pairs = zip(node.body, node.body[1:], strict=False)
    return {
        field.target.id: " ".join(textwrap.dedent(below.value.value).split())
        for field, below in pairs
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }  # fmt: skip


def made() -> dict[Path, str]:
    """The pages and schemas."""
    pages = {"commands.md": commands(), "profiles.md": profiles(), **documents()}
    return {REFERENCE / name: text for name, text in pages.items()}
