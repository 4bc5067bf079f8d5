"""``inspect`` of described machines, ``profiles``, ``completion``, ``render``: said twice alike."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from qwenhost import discovery
from qwenhost.cli.profiles import _COLUMNS
from qwenhost.errors import UnavailableError
from qwenhost.profiles import KINDS, load_catalog, rows_of
from qwenhost.units import format_gib

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli_kit import Cli

    from qwenhost.facts import Catalog

GPUS = sorted(load_catalog().gpus)
TODAY = dt.datetime.now(dt.UTC).date()


class TestInspect:
    @pytest.mark.parametrize("gpu", GPUS)
    def test_a_described_gpu_is_the_catalogs(self, cli: Cli, known: Catalog, gpu: str) -> None:
        """Every GPU: memory, capability and name in both forms."""
        spec = known.gpus[gpu]
        data, shown = (
            cli("inspect", "--gpus", f"2x{gpu}", "--json").data,
            cli("inspect", "--gpus", f"2x{gpu}"),
        )
        assert [one["index"] for one in data["gpus"]] == [0, 1]
        for one in data["gpus"]:
            assert (one["spec"], one["memory_total_bytes"]) == (gpu, spec.memory_bytes)
        assert data["origin"] == "described"
        assert f"2x {data['gpus'][0]['name']}" in shown.text
        assert "(described, not read from this machine)" in shown.text
        assert format_gib(spec.memory_bytes, 1) in shown.text
        assert str(data["gpus"][0]["compute_capability"]) in shown.text

    @pytest.mark.parametrize("link", ["nvlink", "pcie"])
    def test_the_link_is_the_one_described(self, cli: Cli, link: str) -> None:
        """A single GPU has none."""
        words = ("inspect", "--gpus", "2xH200", "--interconnect", link)
        assert cli(*words, "--json").data["interconnect"] == link
        assert f"Interconnect: {link}" in cli(*words).out
        assert "Interconnect" not in cli("inspect", "--gpus", "1xH200").out

    @pytest.mark.parametrize(
        ("gpu", "link"), [("H200", "nvlink"), ("RTX PRO 6000", "pcie"), ("L40S", "pcie")]
    )
    def test_without_a_word_it_is_the_gpus_own(self, cli: Cli, gpu: str, link: str) -> None:
        assert cli("inspect", "--gpus", f"2x{gpu}", "--json").data["interconnect"] == link

    @pytest.mark.parametrize(
        ("text", "spec", "count"),
        [
            ("2xH200", "h200", 2), ("8xH100-80GB", "h100-80gb", 8), ("2x RTX PRO 6000", "rtx-pro-6000", 2),
            ("H200", "h200", 1), ("1XB200", "b200", 1), ("4 x a100-80gb", "a100-80gb", 4),
        ],
    )  # fmt: skip
    def test_names_as_people_write_them(self, cli: Cli, text: str, spec: str, count: int) -> None:
        done = cli("inspect", "--gpus", text, "--json")
        assert done.code == 0, done.err
        assert len(done.data["gpus"]) == count
        assert done.data["gpus"][0]["spec"].startswith(spec)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "expected COUNTxNAME"), ("2xH20O", "Did you mean h200"), ("0xH200", "not within 1 to 1024"),
            ("1025xH200", "not within 1 to 1024"), ("2xTPU", "no GPU called 'TPU'"),
        ],
    )  # fmt: skip
    def test_names_that_are_none(self, cli: Cli, text: str, says: str) -> None:
        cli("inspect", "--gpus", text).refused("--gpus", says)

    def test_a_link_alone_describes_nothing(self, cli: Cli) -> None:
        cli("inspect", "--interconnect", "pcie").refused("--interconnect describes the GPUs of --gpus")

    @pytest.mark.parametrize(
        ("kind", "words", "code"),
        [("no_gpu", (), 0), ("no_gpu", ("--require-gpu",), 4), ("unavailable", (), 4)],
    )
    def test_a_machine_without_gpus_still_shows_its_host(
        self, *, cli: Cli, monkeypatch: pytest.MonkeyPatch, kind: str, words: tuple[str, ...], code: int
    ) -> None:
        """None at all is a finding, a broken driver an error; the table comes in both cases."""

        def fail(_: Any) -> Any:
            error = UnavailableError("the driver is not loaded", remedy="Load it.")
            error.kind = kind
            raise error

        monkeypatch.setattr(discovery, "discover_node", fail)
        done = cli("inspect", *words)
        assert done.code == code
        assert "Host " in done.out
        assert "Note: the driver is not loaded" in done.text
        assert ("Error: the driver is not loaded" in done.err) == (code == 4)
        assert json.loads(cli("inspect", "--json", *words).out)["gpus"] == []


class TestProfiles:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_row_of_text_for_each_row_of_json(self, cli: Cli, known: Catalog, kind: str) -> None:
        """As many as the catalog holds, each with the date of its source."""
        data = cli("profiles", "list", kind, "--json").data
        assert len(data) == len(rows_of(known, kind))
        shown = cli("profiles", "list", kind).text
        for row in rows_of(known, kind):
            assert str(row.source.as_of) in shown
            assert _COLUMNS[kind][0][1](row) in shown

    def test_counts_add_up(self, cli: Cli, known: Catalog) -> None:
        data, shown = cli("profiles", "list", "--json").data, cli("profiles", "list")
        for kind, count in data["kinds"].items():
            assert shown.row(kind) == [kind, str(count)]
        assert data["digest"] == known.digest
        assert f"Newest fact: {known.newest_fact}. Digest: {known.digest[:12]}." in shown.text

    @pytest.mark.parametrize("columns", ["60", "100"])
    @pytest.mark.parametrize("kind", ["gpus", "workloads", "checkpoints"])
    def test_tables_fit(self, cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: str, kind: str) -> None:
        monkeypatch.setenv("COLUMNS", columns)
        lines = cli("profiles", "list", kind).out.splitlines()
        assert max(map(len, lines)) <= int(columns)

    @pytest.mark.parametrize("gpu", GPUS)
    def test_show_is_yaml_of_the_row(self, cli: Cli, known: Catalog, gpu: str) -> None:
        """To be copied into a profile of one's own."""
        shown = cli("profiles", "show", f"gpus/{gpu}")
        row = yaml.safe_load(shown.out)["profile"]
        spec = known.gpus[gpu]
        assert (row["id"], row["memory_bytes"], row["source"]["where"]) == (
            gpu, spec.memory_bytes, spec.source.where,
        )  # fmt: skip
        assert shown.out.startswith(f"# gpus/{gpu}\n")
        assert (
            cli("profiles", "show", f"gpus/{gpu}", "--json").data[0]["row"]["memory_bytes"]
            == spec.memory_bytes
        )

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("list", "gpsu"), "no kind 'gpsu' of profile Choose one of: architectures"),
            (("show", "h2000"), "h200"),
            (("show", "gpus/nothing-like-it"), "nothing-like-it"),
            (("show", ""), "no profile called ''"),
            (("show", "-"), "no profile called '-'"),
            (("schema", "gpsu"), "gpsu"),
            (("check", "nowhere"), "nowhere: no such folder of profiles"),
        ],
    )
    def test_names_that_are_none(self, cli: Cli, words: tuple[str, ...], says: str) -> None:
        cli("profiles", *words).refused(says)

    def test_freshness_counts_days(self, cli: Cli, known: Catalog) -> None:
        """Nothing is older than a century; everything that is not of today is older than none."""
        data = cli("profiles", "check", "--freshness", "36500", "--json")
        assert (data.code, data.data["old"]) == (0, [])
        none = cli("profiles", "check", "--freshness", "0", "--json")
        assert none.code == 5
        assert none.data["older_than"] == "0 days"
        assert {dt.date.fromisoformat(fact["as_of"]) < TODAY for fact in none.data["old"]} == {True}
        shown = cli("profiles", "check", "--freshness", "0")
        assert len(shown.out.splitlines()) == len(none.data["old"])
        assert f"{len(none.data['old'])} older than 0 days" in shown.err

    def test_mistakes_are_json_too(self, cli: Cli, tmp_path: Path) -> None:
        """File and line of each; exit 2."""
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "gpus.yaml").write_text("gpus:\n- id: x\n  nonsense: 1\n")
        done = cli("profiles", "check", folder, "--json")
        assert done.code == 2
        assert done.data["ok"] is False
        assert any("gpus.yaml" in json.dumps(mistake) for mistake in done.data["mistakes"])
        cli("profiles", "check", folder).refused("gpus.yaml")

    def test_a_row_of_ones_own_wins(self, cli: Cli, tmp_path: Path, known: Catalog) -> None:
        """Half the bandwidth, about half the rate where memory bounds it."""
        row = yaml.safe_load(cli("profiles", "show", "gpus/h200").out)["profile"]
        row["hbm_bytes_per_s"] /= 2
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "gpus.yaml").write_text(yaml.safe_dump({"gpus": [row]}))
        words = (
            "plan",
            "--gpus",
            "2xH200",
            "--checkpoint",
            "fp8",
            "-tp",
            "2",
            "--concurrency",
            "4",
            "--json",
        )
        own, built_in = cli("--profiles", folder, *words).data, cli(*words).data
        rate, before = (one["chosen"]["estimate"]["output_tokens_per_s"]["value"] for one in (own, built_in))
        assert 0.4 < rate / before < 0.75
        assert own["inputs"]["catalog_digest"] != built_in["inputs"]["catalog_digest"] == known.digest

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_schema_is_json_schema(self, cli: Cli, kind: str) -> None:
        """With and without --json, as JSON is all there is; keys beyond it are refused."""
        schema = cli("profiles", "schema", kind).data
        assert schema == cli("profiles", "schema", kind, "--json").data
        assert "$schema" in schema
        assert kind in json.dumps(schema)


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_text_and_json_are_the_same_script(self, cli: Cli, shell: str) -> None:
        script = cli("completion", shell).out
        assert cli("completion", shell, "--json").data == {
            "schema": "qwenhost.completion/1", "shell": shell, "script": script.removesuffix("\n"),
        }  # fmt: skip
        assert "qwenhost" in script

    @pytest.mark.parametrize("shell", ["powershell", "BASH", ""])
    def test_other_shells(self, cli: Cli, shell: str) -> None:
        cli("completion", shell).refused("is not one of 'bash', 'zsh', 'fish'")


@pytest.fixture
def render(cli: Cli, saved: Path) -> Callable[..., str]:
    """``render("argv")`` of the saved plan."""

    def ask(form: str, *words: object) -> str:
        done = cli("render", saved, "-f", form, *words)
        assert (done.code, done.err) == (0, ""), done.err
        return done.out

    return ask


FORMATS = ("argv", "config", "env", "docker", "compose", "systemd", "helm")


class TestRender:
    """Options as they come out in each format; the formats themselves are tested in tests/render."""

    @pytest.mark.parametrize("form", FORMATS)
    def test_json_holds_the_same_text(self, cli: Cli, render: Any, saved: Path, form: str) -> None:
        data = cli("render", saved, "-f", form, "--json").data
        assert (data["format"], data["text"]) == (form, render(form))
        assert data["vllm_argv"][:2] == ["vllm", "serve"]

    @pytest.mark.parametrize("form", FORMATS)
    def test_where_it_comes_from_stands_above(self, render: Any, chat_plan: Any, form: str) -> None:
        """Node, workload, vLLM and the catalog's digest."""
        head = render(form)[:1500]
        assert "2x NVIDIA H200" in head
        assert chat_plan.inputs.catalog_digest in head

    @pytest.mark.parametrize("form", ["argv", "docker", "compose", "systemd"])
    def test_another_port_and_address(self, render: Any, form: str) -> None:
        text = render(form, "--port", 8123, "--host", "0.0.0.0")
        assert "8123" in text
        assert "8123" not in render(form)

    @pytest.mark.parametrize("form", ["argv", "config", "docker", "compose"])
    def test_another_model(self, render: Any, form: str) -> None:
        text = render(form, "--model", "me/my-qwen")
        assert "me/my-qwen" in text

    @pytest.mark.parametrize("form", ["docker", "compose"])
    def test_another_image(self, render: Any, form: str) -> None:
        assert "registry.example/vllm:1" in render(form, "--image", "registry.example/vllm:1")

    def test_the_config_is_yaml_with_vllms_names(self, render: Any, chat_plan: Any) -> None:
        config = yaml.safe_load(render("config"))
        args = chat_plan.chosen.engine_args
        assert config["max-model-len"] == args.max_model_len
        assert config["tensor-parallel-size"] == chat_plan.chosen.parallelism.tensor_parallel_size
        assert config["gpu-memory-utilization"] == args.gpu_memory_utilization

    def test_compose_is_yaml_with_one_service(self, render: Any) -> None:
        document = yaml.safe_load(render("compose"))
        assert len(document["services"]) == 1

    def test_a_new_plan_is_that_of_plan(self, cli: Cli) -> None:
        """``render --gpus`` decides as ``plan --gpus`` does."""
        words = ("--gpus", "4xH100-80GB", "--workload", "rag", "--json")
        assert cli("render", *words).data["vllm_argv"] == cli("plan", *words).data["chosen"]["vllm_argv"]

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--port", "0"), "0 is not in the range 1<=x<=65535"),
            (("-f", "yaml"), "'yaml' is not one of"),
            (("-f", "k8s", "--values", "nowhere.yaml"), "nowhere.yaml"),
        ],
    )
    def test_wrong_values(self, cli: Cli, saved: Path, words: tuple[str, ...], says: str) -> None:
        done = cli("render", saved, *words)
        assert done.code in {2, 4}
        assert says in " ".join(done.err.split()) or "needs helm" in done.err
        assert done.out == ""

    def test_a_shell_runs_argv_as_it_stands(self, render: Any, chat_plan: Any) -> None:
        """Comments and continued lines are the shell's own."""
        import shlex

        text = re.sub(r"^#.*$", "", render("argv"), flags=re.MULTILINE).replace("\\\n", " ")
        words = shlex.split(text)
        start = words.index("serve") - 1
        assert words[start + 1 :] == list(chat_plan.chosen.vllm_argv)[1:]
