"""``qwenhost probe``: one run against the truth server, seen in every form; what is refused before."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cli_kit import PROBED, PROBED_OUT, PROBED_REQUESTS

from qwenhost.measurements import load_measurements

if TYPE_CHECKING:
    from cli_kit import Cli
    from truth_process import Truth

KEY = "sk-of-the-probe-0987654321"
N, OUT, SMALL = PROBED_REQUESTS, PROBED_OUT, PROBED
URL = "http://127.0.0.1:9"


class TestRecorded:
    def test_every_request_has_a_line_after_the_head(self, recorded: Path) -> None:
        rows = [json.loads(line) for line in recorded.read_text().splitlines()]
        assert len(rows) >= N + 1
        assert "config" in rows[0]

    def test_drawn_anew_the_figures_are_those_of_the_run(self, cli: Cli, recorded: Path) -> None:
        """From the records alone."""
        data = cli("probe", "--from-records", recorded, "--json").data
        saved = json.loads(recorded.with_name("m.json").read_bytes())
        assert (
            data["requests"] == saved["requests"] == {"sent": N, "completed": N, "failed": 0, "by_error": {}}
        )
        for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"):
            assert data[name] == pytest.approx(saved[name]), name

    def test_the_times_are_the_servers(self, cli: Cli, recorded: Path) -> None:
        """300 ms to the first token, three gaps of 10 ms after it; a busy machine is later, never earlier."""
        data = cli("probe", "--from-records", recorded, "--json").data
        assert data["ttft_ms"]["p50"] >= 300
        assert data["tpot_ms"]["p50"] == pytest.approx(10, rel=0.5)
        assert data["e2e_ms"]["p50"] >= 330
        assert data["workload"]["mean_output_tokens"] == OUT

    def test_text_and_json_agree(self, cli: Cli, recorded: Path) -> None:
        data, shown = (cli("probe", "--from-records", recorded, *form) for form in (("--json",), ()))
        ttft = data.data["ttft_ms"]
        cells = shown.row("Time to first token")[1:]
        assert [float(cell.replace(",", "")) for cell in cells] == pytest.approx(
            [ttft[name] for name in ("mean", "p50", "p90", "p95", "p99")], rel=0.01
        )
        assert f"Requests: {N} of {N} completed" in shown.out
        assert f"{data.data['output_tokens_per_s']:,.1f} output tok/s" in shown.text

    @pytest.mark.parametrize(
        ("words", "share"),
        [(("--slo-ttft-ms", 60_000), 1.0), (("--slo-ttft-ms", 100), 0.0), (("--slo-tpot-ms", 1), 0.0)],
    )
    def test_other_limits_judge_the_same_run(
        self, cli: Cli, recorded: Path, words: tuple[object, ...], share: float
    ) -> None:
        """Exit 5 where the limit given is missed."""
        done = cli("probe", "--from-records", recorded, *words, "--json")
        assert done.data["goodput"]["fraction"] == share
        assert (done.code == 5) == (share == 0.0 or done.data["void"])
        if share == 0.0 and not done.data["void"]:
            assert "SLO missed: 0.0% of requests kept it, 90 % must." in done.err

    def test_a_page_is_drawn_from_records(self, cli: Cli, recorded: Path, tmp_path: Path) -> None:
        page = tmp_path / "again.html"
        cli("probe", "--from-records", recorded, "--html", page)
        text = page.read_text()
        assert text.lower().startswith("<!doctype html>")
        assert "http://" not in text.replace("http://127.0.0.1", "").replace("http://www.w3.org", "")

    def test_saved_measurements_are_read_by_the_others(self, cli: Cli, recorded: Path, saved: Path) -> None:
        """A run that is no measurement of the plan's hardware is still a run."""
        run = load_measurements(recorded.with_name("m.json"))
        done = cli("compare", "--plan", saved, "--measurements", recorded.with_name("m.json"), "--json")
        assert (done.code == 0) == (not run.void), done.err
        if done.code == 0:
            assert done.data["predicted"] is False

    def test_a_line_that_was_cut_is_the_last(self, cli: Cli, recorded: Path, tmp_path: Path) -> None:
        """A killed run: what was whole counts; damage in the middle is refused with its line."""
        lines = recorded.read_text().splitlines(keepends=True)
        cut = tmp_path / "cut.jsonl"
        cut.write_text("".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
        assert cli("probe", "--from-records", cut, "--json").data["requests"]["sent"] <= N
        broken = tmp_path / "broken.jsonl"
        broken.write_text("".join([lines[0], "{nonsense\n", *lines[1:]]))
        cli("probe", "--from-records", broken).refused(f"{broken}, line 2")

    def test_the_median_is_of_the_records(self, cli: Cli, recorded: Path) -> None:
        """By another way: Python's own median of the recorded instants, from when a request was due."""
        rows = [json.loads(line) for line in recorded.read_text().splitlines()[1:]]
        sent = [row for row in rows if "first_token_s" in row]
        assert len(sent) == N
        data = cli("probe", "--from-records", recorded, "--json").data
        for name, until in (("ttft_ms", "first_token_s"), ("e2e_ms", "last_s")):
            waits = [1000 * (row[until] - row["scheduled_s"]) for row in sent]
            assert data[name]["p50"] == pytest.approx(statistics.median(waits)), name
            assert data[name]["mean"] == pytest.approx(statistics.fmean(waits)), name


class TestRefused:
    """Before anything is sent."""

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ((), "give the server's URL or --from-records FILE"),
            (("ftp://x",), "http://127.0.0.1:8000"),
            ((URL, "--from-records", "r.jsonl"), "--from-records measures nothing"),
            (("--from-records", "r.jsonl", "--resume", "r.jsonl"), "--from-records measures nothing"),
            (("--resume", "r.jsonl", "--records", "s.jsonl"), "--resume appends to the file that it names"),
            ((URL, "--think-time", "3"), "--think-time has no effect without --turns or --trace"),
            ((URL, "--trace-scale", "2"), "--trace-scale has no effect without --trace"),
            ((URL, "--tool-choice", "auto"), "--tool-choice has no effect without --tools"),
            ((URL, "--spread", "session"), "--spread has no effect without several URLs"),
            ((URL, "--max-usd", "2"), "--max-usd caps --target sonnet"),
            (("--target", "sonnet", "--max-usd", "2"), "there is no key for Claude's API"),
            ((URL, "--tools", "0"), "--tools 0: 1 to"),
            ((URL, "--tools", "9999"), "--tools 9999: 1 to"),
            ((URL, "--images", "1", "--image-size", "big"), "big"),
            ((URL, "--images", "65"), "65 is not in the range 0<=x<=64"),
            ((URL, "--duration", "soon"), "'soon' is no duration: write 90, 90s, 15m or 8h"),
            ((URL, "--duration", "0"), "'0' is no duration"),
            ((URL, "--rate", "inf"), "'inf' is no finite number"),
            ((URL, "--rate", "-1"), "-1.0 is not in the range x>0"),
            ((URL, "--concurrency", "0"), "0 is not in the range x>=1"),
            ((URL, "--burstiness", "nan"), "'nan' is no finite number"),
            ((URL, "--timeout", "0"), "0.0 is not in the range x>0"),
            ((URL, "--endpoint", "embeddings"), "'embeddings' is not one of"),
            ((URL, "--workload", "nope"), "--workload 'nope': no such preset"),
            ((URL, "--sweep", "rate=1", "--find-rate"), "give one of --sweep, --find-rate and"),
            ((URL, "--save-sweep", "s.json"), "--save-sweep goes with --sweep or --find-..."),
            ((URL, "--sweep", "rate=1", "--rate", "2"), "--sweep names the loads"),
            ((URL, "--sweep", "speed=1"), "--sweep 'speed=1': not a list of loads"),
            ((URL, "--sweep", "rate=1,x"), "--sweep 'rate=1,x': not a list of loads"),
            ((URL, "--sweep", "rate=1,inf"), "--sweep 'rate=1,inf': not a list of loads"),
            ((URL, "--sweep", "rate="), "--sweep 'rate=': not a list of loads"),
            ((URL, "--find-rate", "--concurrency", "3"), "--concurrency has no meaning in a search by rate"),
            ((URL, "--find-concurrency", "--rate", "3"), "--rate has no meaning in a search by concurrency"),
            ((URL, "--find-rate", "--duration", "9"), "--duration has no meaning in a search by rate"),
            ((URL, "--find-concurrency", "--most", "0.5"), "--most: less than one request in flight is none"),
            ((URL, "--confidence", "0.4"), "0.4 is not in the range 0.5<=x<=0.9999"),
            ((URL, "--tolerance", "0"), "0.0 is not in the range 0.001<=x<=1"),
            (("--resume", "r.jsonl", "--sweep", "rate=1"), "--resume goes on with one run"),
            (("--from-records", "r.jsonl", "--find-rate"), "--from-records measures nothing"),
            ((URL, "--sweep", "rate=1", "--save-sweep", "no/s.json"), "no/s.json: no such folder"),
            ((URL, "--save", "no/m.json"), "--save no/m.json: no such folder"),
            ((URL, "--html", "no/m.html"), "--html no/m.html: no such folder"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
    )  # fmt: skip
    def test_wrong_values(self, cli: Cli, words: tuple[str, ...], says: str) -> None:
        cli("probe", *words).refused(says)

    @pytest.mark.parametrize(
        "words", [(URL,), (URL, "--sweep", "rate=1"), (URL, "--find-rate", "--slo-ttft-ms", "9")]
    )
    def test_nobody_there_is_4(self, cli: Cli, words: tuple[str, ...]) -> None:
        """Nothing is written."""
        done = cli("probe", *words, "--save", "m.json")
        done.refused(f"{URL} does not answer", "qwenhost serve", code=4)
        assert not Path("m.json").exists()

    def test_sonnet_is_never_loaded_without_a_cap(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        """A key alone spends nothing; the key of our own service is not offered to Anthropic."""
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        done = cli("probe", "--target", "sonnet")
        done.refused("needs a spending cap", "--max-usd 2")
        assert KEY not in done.err
        cli("probe", "--target", "sonnet", "--max-usd", "1", "--sweep", "rate=1").refused(
            "a sweep makes many"
        )
        cli("probe", URL, URL, "--target", "sonnet", "--max-usd", "1").refused("takes one URL at most")
        monkeypatch.delenv("ANTHROPIC_API_KEY")
        monkeypatch.setenv("QWENHOST_API_KEY", KEY)
        cli("probe", "--target", "sonnet", "--max-usd", "1").refused("there is no key for Claude's API")


class TestAgainstTheTruth:
    def test_an_interruption_writes_what_there_is(
        self, cli: Cli, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C before the first request: 130, nothing half-written."""
        import qwenhost.probe

        def interrupted(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(qwenhost.probe, "run_probe", interrupted)
        path = tmp_path / "m.json"
        path.write_text("of last week")
        done = cli("probe", truth.url(), *SMALL, "--save", path)
        assert (done.code, done.out, done.err.strip()) == (130, "", "Interrupted.")
        assert path.read_text() == "of last week"

    def test_a_sweep_has_a_row_for_each_load(self, cli: Cli, truth: Truth, tmp_path: Path) -> None:
        """Saved, printed and shown alike."""
        path = tmp_path / "sweep.json"
        small = ("--requests", 4, "--input-tokens", 20, "--output-tokens", 3, "--warmup", 0)
        words = ("probe", truth.url("ttft=0.2,itl=0.005"), "--sweep", "concurrency=1,2", *small)
        done = cli(*words, "--save-sweep", path, "--json")
        assert done.code in {0, 5}, done.err
        assert done.data == json.loads(path.read_bytes())
        assert [point["at"] for point in done.data["points"]] == [1, 2]
        assert all(point["measurements"]["requests"]["sent"] >= 4 for point in done.data["points"])

    def test_the_key_is_sent_and_shown_nowhere(
        self, cli: Cli, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither printed nor in any file."""
        monkeypatch.setenv("QWENHOST_API_KEY", KEY)
        names = ("run.jsonl", "m.json", "p.html")
        files = [word for flag, name in zip(("--records", "--save", "--html"), names, strict=True)
                 for word in (flag, tmp_path / name)]  # fmt: skip
        words = (
            "--requests",
            2,
            "--concurrency",
            1,
            "--input-tokens",
            20,
            "--output-tokens",
            3,
            "--warmup",
            0,
        )
        done = cli("probe", truth.url("ttft=0.2,itl=0.005"), *words, *files)
        assert done.code in {0, 5}, done.err
        assert KEY not in done.out + done.err
        for name in names:
            assert KEY not in (tmp_path / name).read_text(), name
