"""Every option of every command, from the commands themselves, with values of every kind."""

from __future__ import annotations

import json
import random
import shutil
from typing import TYPE_CHECKING, Final

import click
import fuzz_documents as real
import pytest
from fuzz_kit import LONG_NUMBER, fuzzed
from fuzz_run import BEFORE, HOME, check_output, ran
from hypothesis import strategies as st

from qwenhost.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

Words = tuple[str, ...]
EDGES: Final = (
    "0", "-0", "-1", "1", "2", "7", "0.5", "1e-9", "1e-320", "1e9", "1e15", "1e300", "1e308", "-1e308",
    "1e999", "nan",
    "inf", "-inf", "0x10", "1_000", "1,5", "²", "٣", "1e", "", " ", "2147483648", "9223372036854775808", "+3",
    LONG_NUMBER, "true", "1.0", "--", "-", "5%",
)  # fmt: skip
WORDS: Final = (
    "", " ", "x", "é", "日本", "\u2028", "\x1b[31m", "[bold]x[/bold]", "[/]", "%s", "{x}", "a=b", "=", ",",
    ",,", "a,b", "..",
    "/", "~", "$HOME", "-", "x" * 5000, "\udcff", "'", '"', "`id`", "a\nb", "null", "*",
)  # fmt: skip
KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "gpus": ("2xH200", "1xH100", "8xA100-80GB", "0xH200", "1024xB200", "1025xH200", "H200", "2x", "x2",
             "2xh200 ", "-2xH200",
             "2x2xH200", "1xRTX 3090", "4xL40S", "99999999999xH200", "1e3xH200", "2xH200,2xB200", "٢xH200",
             "2\u00d7H200"),
    "workload": ("chat", "coding_agent", "coding-agent", "CHAT", "rag", "chat,chat"),
    "workloads": ("chat,coding_agent", "chat,", "chat,chat", "nobody"),
    "duration": ("90", "15m", "8h", "1d", "0", "-5m", "5 m", "1e9h", "nanm", "5x", "m"),
    "slo": ("ttft=1000,tpot=30,p=95", "ttft=1000", "p=100", "p=0", "ttft=-1", "ttft=nan", "ttft=1e999",
            "tpot=", "=5", "x=1",
            "ttft=1,ttft=2", "e2e=1e308", "p=1e-9,ttft=5"),
    "replicas": ("2", "1..4", "4..1", "..", "1..", "0", "0..0", "-1..2", "1.5", "2..2..2", "1..2000000000"),
    "pool": ("2xH200", "2xH200,tier=spot,spot=2", "2xH200,spot=-1", "2xH200,x=1", ",",
             "2xH200,replicas=1..3", "name=x"),
    "autoscale": ("in-flight=99", "in-flight=0", "in-flight=nan", "rate=1", "x", "in-flight=1e308",
                  "in-flight="),
    "schedule": ("mon-fri 08:00-20:00=6", "08:00-20:00=2", "sun-mon 00:00-24:00=1", "20:00-08:00=1",
                 "25:00-26:00=1",
                 "08:00=1", "mon 08:00-08:00=0", "x"),
    "spot": ("2", "2,5", "0", "-1", "nan", "2,120", "x"),
    "start_up": ("60", "60,20", "weights=60", "-1", "nan", "0", "1e308"),
    "acceptance": ("0.8,0.6", "1", "0", "2", "nan", "0.5,", "0.1,0.9", ",".join(["0.5"] * 20)),
    "success": ("qwen=0.8,sonnet=0.9", "0.5", "a=0", "a=nan", "qwen=2", "qwen=0,sonnet=0", "=1"),
    "image": ("1024x1024", "1x1", "0x0", "99999x99999", "x", "1024", "-5x5", "1e3x1e3", "1024x1024*3"),
    "image_size": ("1024x1024", "1x1", "0x0", "99999x99999", "x", "1024", "-5x5"),
    "sweep": ("concurrency=1,2", "rate=0.5", "rate=", "x=1", "concurrency=0", "concurrency=1.5",
              "rate=nan", "rate=1e999"),
    "tools": ("3", "0", "-1", "auto", "99999999999"),
    "as_of": ("2026-11-23", "0001-01-01", "9999-12-31", "2026-13-01", "2026-11-23T10:00:00"),
    "residency": ("us", "eu", "global", ""),
    "baselines": ("claude-sonnet-4-6", "claude-opus", "", "all"),
    "vllm_version": ("0.33.0", "0.32", "0", "999.0", "x", "0.33.0rc1", "0.33.0+cpu"),
    "checkpoint": ("fp8", "bf16", "nvfp4", "fp9", ".", "/", "Qwen/Qwen3.5-122B-A10B"),
    "why_not": ("bf16", "tp8", "fp8 TP4", "x", "bf16,tp=2"),
    "lora_modules": ("a=/", "a", "=", "a=", "a=/nonexistent"),
    "lora_target_modules": ("q_proj", "q_proj,experts", "nobody", ","),
    "host": ("127.0.0.1", "0.0.0.0", "::1", "nobody.invalid", "300.1.1.1", "[::1]"),
    "kube_version": ("1.30", "v1.30.0", "1", "9999", "x", "1.30.0+k3s1"),
    "release": ("qwen", "Q", "-", "a" * 60), "namespace": ("default", "a b", "A"),
    "tolerate": ("nvidia.com/gpu", "a=b:NoSchedule", "/"),
    "urls": ("http://127.0.0.1:1", "http://127.0.0.1:99999", "127.0.0.1:1", "http://[::1",
             "ftp://127.0.0.1", "http://",
             "http://127.0.0.1:1/v1?x=1#y", "http://user:pw@127.0.0.1:1", "HTTP://127.0.0.1:1"),
    "name": ("default", "nobody", "gpus", "h200", "../x", "chat"), "kind": ("gpus", "nobody",
             "assumptions", "GPUS"),
    "ref": ("/nonexistent", ".", "Qwen/x", "a/b/c", "http://127.0.0.1:1"), "revision": ("main", "x" * 200,
            "../x"),
    "gpu_provider": ("runpod", "nobody"), "engine": ("vllm",),
}  # fmt: skip
NUMBERS: Final = (click.types.IntParamType, click.types.FloatParamType)
SMALL: Final = {
    "count": ("1", "3", "20", "0"), "requests": ("1", "3", "0"), "days": ("0.001", "0.01", "0", "nan"),
    "rate": ("0.1", "1", "3", "nan", "0", "-1", "1e-9", "inf"), "concurrency": ("1", "4", "33", "0", "999"),
    "seed": ("0", "1", "18446744073709551616"), "most": ("1", "2", "nan"), "timeout": ("0.1", "nan", "1"),
    "timeout_s": ("0.1", "nan", "1"), "interval": ("0.2", "0.1", "nan", "0"), "within_s": ("1", "nan", "0"),
    "replicas": ("1", "2", "1..3", "..", "0"), "warmup": ("0", "1"), "fail_mtbf": ("10", "500", "nan"),
    "candidates": ("2", "12", "13"), "ready_timeout": ("1", "nan"), "drain_timeout": ("1", "nan"),
}  # fmt: skip
"""What makes a load large is drawn small, or a run of hours would be no hang."""
SPARED: Final = {
    "demo": "always serves", "fetch": "asks the hub, again and again", "_simulated-engine": "serves",
    "serve": "would serve without a plan for no GPU; its options are parsed below",
}  # fmt: skip
FORCED: Final[dict[str, tuple[str, ...]]] = {
    "top": ("--once", "--interval", "0.2"), "probe": ("--timeout", "1"), "profiles import": ("--offline",),
    "k8s init": ("--termination-log", "/dev/null"), "stop": ("--timeout", "0"), "tune": ("--vllm-bin",
                 "/nonexistent"),
    "count-tokens": ("--claude-url", "http://127.0.0.1:1", "--url", "http://127.0.0.1:1"),
}  # fmt: skip
NEVER: Final = {"follow", "target", "claude_url", "debug"}
"""Go on for ever, or ask a paid API."""
OUTPUTS: Final = ("save", "html", "csv_dir", "output", "output_dir", "records_file", "records", "save_sweep")
COMMON: Final = ("gpus", "workload")


def _walk(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    ctx = click.Context(command)
    for name in command.list_commands(ctx):
        found = command.get_command(ctx, name)
        assert found is not None
        yield from _walk(found, (*path, name))


COMMANDS: Final = {" ".join(path): command for path, command in _walk(cli)}
RUN: Final = [name for name in COMMANDS if name.split()[0] not in SPARED]


def value_of(name: str, param: click.Parameter, chance: random.Random) -> str:
    """A value for an option, right about half of the time."""
    kind = param.type
    if param.name in SMALL and name not in ("plan", "compare", "advise", "render"):
        return chance.choice(SMALL[param.name])
    if isinstance(kind, click.Choice):
        return str(chance.choice((*kind.choices, *kind.choices, "", "X", kind.choices[0].upper())))
    if isinstance(kind, click.Path):
        return _path(param.name or "", chance)
    if isinstance(kind, NUMBERS):
        low, high = getattr(kind, "min", None), getattr(kind, "max", None)
        near = [str(edge) for end in (low, high) if end is not None for edge in (end, end - 1, end + 1)]
        return chance.choice((*EDGES, *near * 3, str(chance.randrange(1, 100))))
    if isinstance(kind, click.DateTime):
        return chance.choice((*KNOWN["as_of"], *EDGES))
    known = KNOWN.get(param.name or "", ())
    return (
        chance.choice((*known, *known, *known, *WORDS, *EDGES)) if known else chance.choice((*WORDS, *EDGES))
    )


def _path(name: str, chance: random.Random) -> str:
    """A file to read or to write, or something that is neither."""
    odd = (
        "", "/nonexistent/x", ".", "/", "x" * 300, "loop", "plan.json/x", "\udcff", "日本", "a b",
        "folder/../folder", "empty", "/proc/self/mem",
    )  # fmt: skip
    good = tuple(f"GOOD-{kind}" for kind in ("plan", "measurements", "comparison", "token_counts", "nodes"))
    if name in OUTPUTS:
        good = ("OUT.json", "OUT.html", "new-folder")
    return chance.choice((*odd, *good, *good, *good))


def _given(flag: str, value: str, chance: random.Random) -> list[str]:
    return [f"{flag}={value}"] if flag[:2] == "--" and chance.random() < 0.7 else [flag, value]


def words_for(name: str, chance: random.Random) -> list[str]:
    """A command line: what is needed, and a few of its options."""
    command = COMMANDS[name]
    words = [*name.split(), *FORCED.get(name, ())]
    options = [one for one in command.params if isinstance(one, click.Option) and one.name not in NEVER]
    chosen = chance.sample(options, min(len(options), chance.choice((1, 1, 2, 3, 6))))
    chosen += [one for one in options if one.required and one not in chosen]
    given = {one.name for one in chosen}
    for option in options:
        if option.name == "gpus" and "gpus" not in given and chance.random() < 0.9:
            words += ["--gpus", "2xH200"]
    for option in chosen:
        for _ in range(chance.choice((1, 2)) if option.multiple else 1):
            flag = chance.choice((*option.opts, *option.secondary_opts))
            if flag in FORCED.get(name, ()):
                continue
            words.append(
                flag
                if option.is_flag
                else f"{flag}={value_of(name, option, chance)}"
                if flag[:2] == "--" and chance.random() < 0.7
                else ""
            )
            if not option.is_flag and not words[-1]:
                words[-1:] = [flag, value_of(name, option, chance)]
    for one in command.params:
        if isinstance(one, click.Argument) and (one.required or chance.random() < 0.7):
            words += [
                value_of(name, one, chance) for _ in range(chance.choice((1, 1, 2)) if one.nargs == -1 else 1)
            ]
    return words


def prepare() -> None:
    for kind in ("plan", "measurements", "comparison", "token_counts", "nodes"):
        if not (HOME / f"GOOD-{kind}").exists():
            (HOME / f"GOOD-{kind}").write_text(json.dumps(getattr(real, kind)()))
    for name in ("OUT.json", "OUT.html"):
        (HOME / name).write_bytes(BEFORE)
    (HOME / "empty").touch()
    if not (HOME / "loop").is_symlink():
        shutil.rmtree(HOME / "loop", ignore_errors=True)
        (HOME / "loop").unlink(missing_ok=True)
        (HOME / "loop").symlink_to("loop")


@pytest.mark.parametrize("name", RUN)
@fuzzed(10, seed=st.integers(0, 2**64 - 1))
def test_options(name: str, seed: int) -> None:
    prepare()
    argv = words_for(name, random.Random(seed))  # noqa: S311 - chance, not secrets
    try:
        code, _, _ = ran(*argv, may_start=name == "tune")
        for word in ("OUT.json", "OUT.html"):
            if code != 0:
                check_output(HOME / word)
    except BaseException as error:
        error.add_note(" ".join(map(repr, argv)))
        raise


SINGLE: Final = [
    (name, option.name)
    for name, command in COMMANDS.items() if name.split()[0] not in SPARED
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag
]  # fmt: skip


def _argv(name: str, option: click.Option, value: str) -> list[str]:
    """Only this option, beside what the command cannot do without."""
    words = (
        [*name.split(), f"{option.opts[0]}={value}"]
        if option.opts[0][:2] == "--"
        else [*name.split(), option.opts[0], value]
    )
    for one in COMMANDS[name].params:
        if one.required and one is not option and isinstance(one, click.Argument):
            words.append("bash" if isinstance(one.type, click.Choice) else "GOOD-plan")
        elif one.required and one is not option:
            words.append(f"{one.opts[0]}=GOOD-plan")
    return words


@pytest.mark.parametrize("name", sorted({name for name, _ in SINGLE}))
def test_a_number_that_is_none_is_refused_by_the_name_of_its_flag(name: str) -> None:
    """Click takes nan and inf for numbers, and nan lies in every range."""
    prepare()
    for option in COMMANDS[name].params:
        if (
            isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
            and option.name not in NEVER
        ):
            assert isinstance(option, click.Option)
            # What begins with a dash is another option to one whose value may be left out.
            values = ("nan", "x") if option._flag_needs_value else ("nan", "-inf")
            for value in values:
                code, _, err = ran(*_argv(name, option, value))
                assert code == 2, (name, option.name, value)
                assert option.opts[0] in err, (name, value, err)
