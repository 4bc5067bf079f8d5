"""Whatever stands in a plan or on the command line arrives as it is, and nothing else does."""

from __future__ import annotations

import re
import shlex
import string
import subprocess
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import render_samples
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.render import Target, render
from qwenhost.render.argv import argv_of, option, text_of, vllm_argv
from qwenhost.render.flags import SECRET_FLAGS, environment, vllm_flags
from qwenhost.render.formats import FORMATS, SEVERAL_ENGINES
from qwenhost.render.header import header
from qwenhost.render.host_formats import config_of, dump

if TYPE_CHECKING:
    from qwenhost.plan import Plan

# What shells, YAML, compose and systemd each read in a way of their own.
NASTY = (
    "a b", "a'b", 'a"b', "$HOME", "${HOME}", "$$", "`id`", "$(id)", "a\\b", "a\\", "%h", "%%", "a;b", "a&b",
    "a|b", "a>b", "#a", "a #b", "*", "~", "!", "{a,b}", "a\tb", "é", "1e5", "0x10", "null", "yes", "-x", "@a",
    ":a", "a=b",
)  # fmt: skip
LINES = ("a\nb", "a\nExecStart=/bin/sh", "\n", "a\r\nb")
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs", "Cc", "Zl", "Zp")),
    min_size=1, max_size=12,
)  # fmt: skip
NAMES = st.text(string.ascii_uppercase, min_size=1, max_size=6).map(lambda name: f"VLLM_{name}_")


def plan_of(env: dict[str, str] | None = None, **engine_args: Any) -> Plan:
    """The sample with other variables or arguments."""
    chosen = render_samples.candidate(**engine_args)
    if env is not None:
        chosen = msgspec.structs.replace(chosen, vllm_env=env)
    return render_samples.plan(chosen)


def command(text: str) -> list[str]:
    """The words a shell makes of what follows the comments."""
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("# "))
    return shlex.split(kept.replace(" \\\n  ", " "))  # docker's command has an option a line


def interpolated(text: str) -> str:
    """What compose makes of a text: ``$$`` is a dollar, anything else with one would be a variable."""
    assert "$" not in text.replace("$$", ""), text
    return text.replace("$$", "$")


def unit_words(line: str) -> list[str]:
    """Words of an ``ExecStart`` by systemd.syntax(7) and systemd.service(5)."""
    words: list[str] = []
    word: str | None = None
    quoted = False
    rest = iter(line)
    for letter in rest:
        if letter == '"':
            quoted, word = not quoted, word or ""
        elif letter == "\\":
            escape = next(rest)
            found = chr(int(next(rest) + next(rest), 16)) if escape == "x" else escape
            assert escape in 'x\\"'
            word = (word or "") + found
        elif letter in " \t" and not quoted:
            words += [] if word is None else [word]
            word = None
        else:
            word = (word or "") + letter
    assert not quoted
    words += [] if word is None else [word]
    return [each.replace("$$", "$").replace("%%", "%") for each in words]


def exec_start(unit: str) -> str:
    """The one command of a unit."""
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    return str(line)


class TestShell:
    @settings(max_examples=60, deadline=None)
    @given(TEXTS, st.dictionaries(NAMES, TEXTS, max_size=3))
    def test_argv_survives_it(self, model: str, env: dict[str, str]) -> None:
        """Split by a shell's rules, the line is the command again."""
        plan = plan_of(env)
        words = command(render(plan, "argv", Target(model=model)))
        expected = vllm_argv(plan.chosen, model=model)
        assert words[-len(expected) :] == expected
        variables = [f"{name}={value}" for name, value in sorted(env.items())]
        assert words[: -len(expected)] == (["env", *variables] if env else [])

    @settings(max_examples=60, deadline=None)
    @given(TEXTS, st.dictionaries(NAMES, TEXTS, max_size=3))
    def test_docker_survives_it(self, image: str, env: dict[str, str]) -> None:
        """The image is one word, each variable another."""
        words = command(render(plan_of(env), "docker", Target(image=image)))
        assert words[words.index("--entrypoint") + 2] == image
        given_env = [words[i + 1] for i, word in enumerate(words) if word == "--env"]
        assert given_env == [f"{name}={value}" for name, value in sorted(env.items())]

    def test_a_real_shell_agrees(self) -> None:
        """All the nasty ones at once, printed by ``sh`` a line each."""
        env = {f"VLLM_{index}": text for index, text in enumerate(NASTY)}
        line = render(plan_of(env), "argv").splitlines()[-1]
        show = line.replace("env ", "printf '%s\\n' ", 1)
        done = subprocess.run(["/bin/sh", "-c", show], capture_output=True, text=True, check=True)
        printed = done.stdout.splitlines()
        assert printed[: len(env)] == [f"{name}={value}" for name, value in sorted(env.items())]

    @pytest.mark.parametrize("fmt", ["argv", "docker"])
    @pytest.mark.parametrize("text", LINES)
    def test_line_breaks_stay_within_a_word(self, fmt: str, text: str) -> None:
        """Quoted, they end no command."""
        words = command(render(plan_of({"VLLM_X": text}), fmt))
        assert f"VLLM_X={text}" in words

    @pytest.mark.parametrize("text", NASTY)
    def test_docker_mounts_the_folder_that_was_named(self, text: str) -> None:
        """Read-only, at its own path; a colon would cut it in two."""
        target = Target(model=f"/models/{text}")
        if ":" in text:
            with pytest.raises(BadInputError, match="colon") as caught:
                render(plan_of(), "docker", target)
            assert "--model" in str(caught.value)
            return
        words = command(render(plan_of(), "docker", target))
        assert f"/models/{text}:/models/{text}:ro" in words
        assert words[words.index("serve") + 1] == f"/models/{text}"


class TestCompose:
    @settings(max_examples=60, deadline=None)
    @given(TEXTS, TEXTS, st.dictionaries(NAMES, TEXTS, max_size=3))
    def test_nothing_is_interpolated(self, image: str, folder: str, env: dict[str, str]) -> None:
        """Image, folder, arguments and variables arrive with their dollars."""
        model = "/" + folder.replace(":", "-")
        plan = plan_of(env)
        read = yaml.safe_load(render(plan, "compose", Target(image=image, model=model)))
        service = read["services"]["vllm"]
        assert interpolated(service["image"]) == image
        assert interpolated(service["command"][0]) == model
        assert interpolated(service["volumes"][-1]) == f"{model}:{model}:ro"
        found = {name: interpolated(value) for name, value in service.get("environment", {}).items()}
        assert found == env

    @pytest.mark.parametrize("text", [*NASTY, *LINES])
    def test_yaml_of_either_version_reads_a_text(self, text: str) -> None:
        """Each value is a string again, whatever it looks like."""
        assert yaml.safe_load(dump({"a": text, "b": [text]})) == {"a": text, "b": [text]}

    def test_a_colon_is_refused(self) -> None:
        """Here as in docker's command."""
        with pytest.raises(BadInputError, match="colon"):
            render(plan_of(), "compose", Target(model="/models/a:b"))

    def test_the_shape_is_that_of_the_compose_specification(self) -> None:
        """Every key of the file and of a service is one that the specification has, with its type."""
        read = yaml.safe_load(render(plan_of(), "compose"))
        assert set(read) == {"name", "services", "volumes"}
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", read["name"])
        (service,) = read["services"].values()
        kinds = {
            "image": str, "entrypoint": list, "command": list, "ports": list, "env_file": list,
            "environment": dict, "volumes": list, "ipc": str, "security_opt": list, "restart": str,
            "deploy": dict, "healthcheck": dict,
        }  # fmt: skip
        assert {name: type(value) for name, value in service.items()} == kinds
        assert service["restart"] in {"no", "always", "on-failure", "unless-stopped"}
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert ("count" in device) != ("device_ids" in device)
        check = service["healthcheck"]
        assert check["test"][0] in {"CMD", "CMD-SHELL", "NONE"}
        for name in ("interval", "timeout", "start_period"):
            assert re.fullmatch(r"(\d+h)?(\d+m)?(\d+s)?", check[name])
        named = {volume.split(":")[0] for volume in service["volumes"] if re.match(r"[a-z]", volume)}
        assert named == set(read["volumes"])

    @pytest.mark.parametrize(
        ("host", "port", "published"),
        [
            ("127.0.0.1", 8000, "127.0.0.1:8000:8000"),
            ("0.0.0.0", 80, "0.0.0.0:80:8000"),
            ("::1", 9000, "[::1]:9000:8000"),
        ],
    )
    def test_ports(self, host: str, port: int, published: str) -> None:
        """An address of the sixth version stands in brackets."""
        read = yaml.safe_load(render(plan_of(), "compose", Target(host=host, port=port)))
        assert read["services"]["vllm"]["ports"] == [published]


class TestUnit:
    @settings(max_examples=80, deadline=None)
    @given(TEXTS, TEXTS)
    def test_words_survive_systemd(self, plan_path: str, model: str) -> None:
        """Read by the rules of systemd.syntax(7), the command is the one meant."""
        line = exec_start(render(plan_of(), "systemd", Target(plan_path=plan_path, model=model)))
        assert unit_words(line) == [
            "/usr/local/bin/qwenhost", "serve", plan_path, "--host", "127.0.0.1", "--port", "8000",
            "--model", model,
        ]  # fmt: skip

    @pytest.mark.parametrize("text", [*NASTY, *LINES, "\x07", "a\x1bb"])
    def test_no_text_is_a_setting_of_its_own(self, text: str) -> None:
        """A line break in a path would start one: the unit has the lines it always has."""
        usual = [line.split("=")[0] for line in render(plan_of(), "systemd").splitlines()]
        unit = render(plan_of(), "systemd", Target(plan_path=text))
        assert [line.split("=")[0] for line in unit.splitlines()] == usual
        assert unit_words(exec_start(unit))[2] == text

    @pytest.mark.parametrize("text", LINES)
    def test_nor_is_a_checkpoints_name(self, text: str) -> None:
        """It stands in the description."""
        chosen = render_samples.CANDIDATE
        named = msgspec.structs.replace(chosen.checkpoint, repo_id=f"Qwen/{text}")
        unit = render(render_samples.plan(msgspec.structs.replace(chosen, checkpoint=named)), "systemd")
        assert unit.count("ExecStart=") - unit.count(f"{' '.join(text.split())}") <= 1
        assert [line for line in unit.splitlines() if line.startswith("ExecStart=")] == [
            f"ExecStart={exec_start(unit)}"
        ]

    def test_the_credential_keeps_its_specifier(self) -> None:
        """``%d`` is systemd's folder of credentials, and the one percent sign that stays."""
        line = exec_start(render(plan_of(), "systemd", Target(host="0.0.0.0", plan_path="/a%d")))
        assert line.endswith("--api-key-file %d/api-key")
        assert "/a%%d" in line


class TestEnvironment:
    @pytest.mark.parametrize("name", ["", "A B", "A=B", "A\nB", "1A", "A-B", "É", "A$"])
    def test_a_name_that_none_can_have(self, name: str) -> None:
        """It is refused in every format, by name: in a file it would be two settings."""
        for fmt in set(FORMATS) - {"systemd"}:  # whose unit names no variables: serve reads the plan
            with pytest.raises(BadInputError, match="is not the name of a variable") as caught:
                render(plan_of({name: "1"}), fmt)
            assert repr(name) in str(caught.value)

    @pytest.mark.parametrize(
        "name", ["HF_TOKEN", "MY_SECRET", "DB_PASSWORD", "X_API_KEY", "OPENAI_APIKEY", "A_KEY", "hf_token"]
    )
    def test_a_secret(self, name: str) -> None:
        """Refused by its name; its value is not said."""
        with pytest.raises(BadInputError, match=name) as caught:
            environment(plan_of({name: "s3cr3t"}).chosen)
        assert "s3cr3t" not in f"{caught.value}{caught.value.remedy}"

    @pytest.mark.parametrize("name", ["VLLM_KEYS_OFF", "TOKENIZERS_PARALLELISM", "_A", "a1"])
    def test_what_only_looks_like_one(self, name: str) -> None:
        """The end of the name decides."""
        assert environment(plan_of({name: "1"}).chosen) == {name: "1"}

    @settings(max_examples=40, deadline=None)
    @given(st.dictionaries(NAMES, TEXTS, max_size=4))
    def test_the_file_has_a_line_for_each(self, env: dict[str, str]) -> None:
        """As docker reads it: all after the first equals sign."""
        lines = [line for line in render(plan_of(env), "env").splitlines() if not line.startswith("# ")]
        assert dict(line.split("=", 1) for line in lines) == env

    def test_a_line_break_is_refused_there(self) -> None:
        """With the variable's name."""
        with pytest.raises(BadInputError, match="VLLM_X has a line break"):
            render(plan_of({"VLLM_X": "a\nb"}), "env")


class TestFlags:
    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (True, ["--some-flag"]),
            (False, ["--no-some-flag"]),
            (3, ["--some-flag", "3"]),
            (0.5, ["--some-flag", "0.5"]),
            ("text", ["--some-flag", "text"]),
            ("", ["--some-flag", ""]),
            # argparse would take it for an option
            ("-1", ["--some-flag=-1"]),
            (-1, ["--some-flag=-1"]),
            ({"a": 1}, ["--some-flag", '{"a":1}']),
            (["a", 2], ["--some-flag", "a", "2"]),
            ([{"a": True}], ["--some-flag", '{"a":true}']),
            ([], []),
        ],
    )
    def test_words_of_a_value(self, value: Any, words: list[str]) -> None:
        """As vLLM's parser reads each kind."""
        assert argv_of({"some_flag": value}) == words

    def test_the_model_comes_first(self) -> None:
        """Positional, wherever it stood; without one there are options alone."""
        assert argv_of({"a": 1, "model": "m"}) == ["m", "--a", "1"]
        assert argv_of({"a": 1}) == ["--a", "1"]

    def test_options_and_texts(self) -> None:
        """Underscores become dashes; JSON for what is no plain text."""
        assert (option("a_b"), option("a_b", value=False)) == ("--a-b", "--no-a-b")
        assert [text_of(each) for each in (True, 1, "x", [1], {"a": None})] == [
            "true",
            "1",
            "x",
            "[1]",
            '{"a":null}',
        ]

    @pytest.mark.parametrize("name", sorted(SECRET_FLAGS))
    def test_a_secret_among_further_arguments(self, name: str) -> None:
        """Named, its value unsaid."""
        with pytest.raises(BadInputError, match=name) as caught:
            vllm_flags(render_samples.candidate(extra={name: "s3cr3t"}))
        assert "s3cr3t" not in f"{caught.value}{caught.value.remedy}"

    @pytest.mark.parametrize("name", ["max_model_len", "host", "model", "tensor_parallel_size", "revision"])
    def test_what_the_plan_already_sets(self, name: str) -> None:
        """Twice the same flag would be won by the last."""
        with pytest.raises(BadInputError, match=f"repeats {name}"):
            vllm_flags(render_samples.candidate(extra={name: 1}))

    @pytest.mark.parametrize("name", ["max-model-len", "A", "--x", "", "a b", "a=1", "a\n", "1a", "é"])
    def test_what_is_no_flag(self, name: str) -> None:
        """Underscores and small letters only."""
        with pytest.raises(BadInputError, match="is not the name of a flag"):
            vllm_flags(render_samples.candidate(extra={name: 1}))

    def test_a_further_argument_left_empty(self) -> None:
        """Null leaves it out; the served name may be replaced."""
        flags = vllm_flags(
            render_samples.candidate(extra={"seed": None, "served_model_name": "qwen", "swap_space": 0})
        )
        assert "seed" not in flags
        assert (flags["served_model_name"], flags["swap_space"]) == ("qwen", 0)

    def test_a_revision_is_for_the_hub_alone(self) -> None:
        """Another model has none of this checkpoint's revisions; its own name does."""
        chosen = render_samples.CANDIDATE
        assert vllm_flags(chosen)["revision"] == render_samples.REVISION
        assert "revision" not in vllm_flags(chosen, model="/models/x")
        assert vllm_flags(chosen, model=chosen.checkpoint.repo_id)["revision"] == render_samples.REVISION

    @settings(max_examples=60, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(["aa", "b_b", "cc"]), st.one_of(st.booleans(), st.integers(), TEXTS), max_size=3
        )
    )
    def test_the_config_file_says_the_same(self, flags: dict[str, Any]) -> None:
        """Its keys are the options of the command line, with its values, through YAML and back."""
        read = yaml.safe_load(dump(config_of(flags))) or {}
        again = {
            name.removeprefix("no-").replace("-", "_"): name[:3] != "no-" and value
            for name, value in read.items()
        }
        assert again == flags


class TestHeader:
    @pytest.mark.parametrize("fmt", sorted(FORMATS))
    def test_comments_first_and_then_no_more(self, fmt: str) -> None:
        """Every line up to the first of the text is one, and it names the plan's makings."""
        text = render(plan_of(), fmt)
        head = text.split("\n")[0:4]
        assert all(line.startswith("# ") for line in head)
        assert "abc123" in text
        assert render_samples.REVISION in text

    @settings(max_examples=30, deadline=None)
    @given(st.text(max_size=20))
    def test_no_text_leaves_its_comment(self, text: str) -> None:
        """Whatever it holds, of each line break that Python knows."""
        lines = header(plan_of(), text).splitlines()
        assert all(line.startswith("#") for line in lines)
        assert len(lines) == 5

    def test_several_engines_need_a_format_that_holds_them(self) -> None:
        """The error names those."""
        chosen = render_samples.CANDIDATE
        layout = msgspec.structs.replace(chosen.parallelism, tensor_parallel_size=1, replicas=2)
        plan = render_samples.plan(msgspec.structs.replace(chosen, parallelism=layout))
        for fmt in FORMATS:
            if fmt in SEVERAL_ENGINES:
                assert render(plan, fmt)
                continue
            with pytest.raises(
                BadInputError, match=f"format {fmt} runs one engine, and the plan has 2"
            ) as caught:
                render(plan, fmt)
            assert "compose or helm" in str(caught.value.remedy)
