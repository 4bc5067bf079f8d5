"""``status``, ``logs``, ``top``, ``stop``, ``doctor``: services as their folders tell of them."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import http.server
import json
import os
import shutil
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from qwenhost.cli import top as top_command
from qwenhost.launcher.failures import Failure
from qwenhost.launcher.phases import LogFigures
from qwenhost.launcher.state import Change, Deviation, Expected, ServiceHome, ServiceState, state_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cli_kit import Cli

KEY = "sk-of-the-service-1234567890"
STATE = ServiceState(
    name="prod",
    status="ready",
    engine="simulated",
    target="gpu",
    base_url="http://127.0.0.1:9",
    model="qwen",
    label="fp8 TP2 [SIMULATED]",
    supervisor_pid=4_000_000,
    engine_pid=4_000_001,
    progress="serving [3/4]",
    started_at="2026-11-23T10:00:00+00:00",
    ready_at="2026-11-23T10:01:00+00:00",
    ready_s=61.5,
    updated_at="2026-11-23T11:00:00+00:00",
)
Service = "Callable[..., ServiceHome]"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., ServiceHome]]:
    """``service("prod", running=True, restarts=2)`` leaves a folder as a supervisor does."""
    locks: list[int] = []

    def make(name: str = "prod", *, running: bool = True, log: str = "", **changes: Any) -> ServiceHome:
        home = ServiceHome(name, root=state_root(os.environ))
        home.create()
        home.write_state(msgspec.structs.replace(STATE, name=name, **changes))
        home.log_file.write_text(log)
        if running:
            locks.append(home.lock())
        return home

    yield make
    for lock in locks:
        with contextlib.suppress(OSError):
            os.close(lock)


class TestStatus:
    def test_nothing_was_started(self, cli: Cli) -> None:
        done = cli("status")
        assert (done.code, done.out) == (0, "No service was started here. Start one with: qwenhost serve\n")
        assert cli("status", "--json").data == []

    def test_each_service_has_a_row(self, cli: Cli, service: Any) -> None:
        """By name; what looks like markup is shown as it is."""
        service("prod", restarts=3)
        service("night", status="stopped", running=False)
        done = cli("status")
        assert done.row("prod")[:2] == ["prod", "ready"]
        assert "serving [3/4]" in done.out
        assert "fp8 TP2 [SIMULATED]" in done.out
        assert done.row("prod")[3] == "3"
        assert done.row("night")[1] == "stopped"
        assert {one["name"]: one["status"] for one in cli("status", "--json").data} == {
            "prod": "ready", "night": "stopped",
        }  # fmt: skip

    def test_one_by_name_with_all_its_figures(self, cli: Cli, service: Any) -> None:
        """What was expected, what the log said, how it differs, what was changed, what failed."""
        service(
            expected=Expected(ready_s=90.0, low_s=60.0, high_s=200.0, basis="measured", source="12 starts"),
            figures=LogFigures(kv_cache_tokens=90_000, model_loading_gib=58.4),
            deviations=(Deviation(name="KV cache", planned=100_000, observed=90_000, unit="tokens"),),
            fallbacks=(Change(trigger="out_of_memory", change="0.92 to 0.89", cause="CUDA", at="now"),),
            failure=Failure(kind="out_of_memory", cause="CUDA out of memory", remedy="Take less."),
        )
        said = cli("status", "prod").text
        for line in (
            "started 2026-11-23T10:00:00+00:00, ready after 61.5 s",
            "expected: 90 s (60 to 200 s), measured: 12 starts",
            "kv_cache_tokens: 90000",
            "model_loading_gib: 58.4",
            "differs from the plan: KV cache: 90,000 tokens, planned 100,000 tokens (-10.0%)",
            "fallback (out_of_memory): 0.92 to 0.89",
            "last failure: the engine failed: out of memory: CUDA out of memory",
            "Take less.",
        ):
            assert line in said
        data = cli("status", "prod", "--json").data
        assert data["figures"]["kv_cache_tokens"] == 90_000
        assert data["expected"]["ready_s"] == 90.0

    def test_one_start_known_has_no_span(self, cli: Cli, service: Any) -> None:
        service(expected=Expected(ready_s=90, low_s=90, high_s=90, basis="measured", source="1 start"))
        assert "expected: 90 s (one start)" in cli("status", "prod").out

    def test_one_that_is_not_ready_says_so(self, cli: Cli, service: Any) -> None:
        service(status="starting", ready_s=None, ready_at=None)
        assert "started 2026-11-23T10:00:00+00:00, not ready yet" in cli("status", "prod").out

    @pytest.mark.parametrize("status", ["starting", "ready", "draining", "backoff"])
    def test_a_supervisor_that_died_is_a_failure(self, cli: Cli, service: Any, status: str) -> None:
        """Whatever it wrote last: nobody holds the lock."""
        service(status=status, running=False)
        data = cli("status", "prod", "--json").data
        assert (data["status"], data["engine_pid"]) == ("failed", None)
        assert data["failure"]["kind"] == "supervisor_died"
        assert "qwenhost serve" in cli("status", "prod").out

    @pytest.mark.parametrize("words", [("status", "nobody"), ("stop", "nobody"), ("top", "nobody", "--once")])
    def test_a_name_that_is_not_there(self, cli: Cli, words: tuple[str, ...]) -> None:
        cli(*words).refused("no service named 'nobody'", "List them with: qwenhost status")

    @pytest.mark.parametrize("words", [("logs", "{}"), ("stop", "{}"), ("top", "{}", "--once")])
    @pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 65, "blank here"])
    def test_a_name_is_a_plain_word(self, cli: Cli, words: tuple[str, ...], name: str) -> None:
        """No folder outside the state's is ever touched."""
        cli(*(word.format(name) for word in words)).refused("not a service name", "letters, digits")

    @pytest.mark.parametrize("body", ["", "{}", "[]", "\xff", '{"name": 3}', "{" * 9000])
    def test_a_damaged_state_names_its_file(self, cli: Cli, service: Any, body: str) -> None:
        home = service()
        home.state_file.write_text(body, encoding="latin-1")
        cli("status").refused(f"{home.state_file}: ", f"Remove {home.path}")

    @pytest.mark.parametrize("columns", ["60", "100"])
    def test_it_fits_the_width(
        self, cli: Cli, service: Any, monkeypatch: pytest.MonkeyPatch, columns: str
    ) -> None:
        monkeypatch.setenv("COLUMNS", columns)
        service(label="a label that is far longer than anybody would ever write it by hand, for sure")
        assert max(map(len, cli("status").out.splitlines())) <= int(columns)


class TestLogs:
    LOG = "".join(f"(EngineCore pid=7) INFO 11-23 10:00:0{i} [core.py:{i}] line {i}\n" for i in range(6))

    @pytest.mark.parametrize(
        ("words", "first"), [((), 0), (("-n", "2"), 4), (("--lines", "0"), 6), (("-n", "99"), 0)]
    )
    def test_lines_from_the_end(self, cli: Cli, service: Any, words: tuple[str, ...], first: int) -> None:
        service(log=self.LOG)
        assert cli("logs", "prod", *words).out.splitlines() == self.LOG.splitlines()[first:]

    def test_json_is_one_object_a_line(self, cli: Cli, service: Any) -> None:
        """Who said it, how loud, what."""
        service(log=self.LOG)
        rows = [json.loads(line) for line in cli("logs", "prod", "--json").out.splitlines()]
        assert len(rows) == 6
        assert {row["level"] for row in rows} == {"INFO"}
        assert rows[3]["text"].endswith("line 3")

    def test_bytes_that_are_no_text_are_replaced(self, cli: Cli, service: Any) -> None:
        home = service()
        home.log_file.write_bytes(b"fine\n\xff\xfe broken\n")
        assert cli("logs", "prod").out.splitlines() == ["fine", "\ufffd\ufffd broken"]

    def test_following_ends_with_the_service(self, cli: Cli, service: Any) -> None:
        service(running=False, status="stopped", log=self.LOG)
        assert cli("logs", "prod", "-f", "-n", "1").out == self.LOG.splitlines(keepends=True)[-1]

    def test_no_log_is_told_with_its_path(self, cli: Cli, service: Any) -> None:
        home = service()
        home.log_file.unlink()
        cli("logs", "prod").refused(f"{home.log_file}: No such file or directory")
        cli("logs", "prod", "-n", "-1").refused("-1 is not in the range x>=0")


class TestStop:
    def test_what_has_ended_is_told_again(self, cli: Cli, service: Any) -> None:
        """Twice is no error."""
        service(running=False, status="stopped")
        for _ in range(2):
            assert cli("stop", "prod").out == "prod: stopped\n"
        assert cli("stop", "prod", "--json").data["status"] == "stopped"

    def test_one_that_does_not_end_in_time_is_4(
        self, cli: Cli, service: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the harder way; its process id is asked, never killed."""
        service()
        asked: list[tuple[int, int]] = []
        monkeypatch.setattr(os, "kill", lambda pid, number: asked.append((pid, number)))
        done = cli("stop", "prod", "--timeout", "0")
        done.refused("'prod' did not stop within 0 s", "qwenhost stop prod --force", code=4)
        assert {number for _, number in asked} <= {15, 2, 0}

    @pytest.mark.parametrize("value", ["-1", "nan", "soon"])
    def test_a_wrong_timeout(self, cli: Cli, value: str) -> None:
        cli("stop", "--timeout", value).refused("--timeout")


METRICS = """\
# HELP vllm:num_requests_running in batches
vllm:num_requests_running{{engine="0"}} 3.0
vllm:num_requests_waiting{{engine="0"}} 2.0
vllm:kv_cache_usage_perc{{engine="0"}} 0.25
vllm:prompt_tokens_total{{engine="0"}} {prompt}
vllm:generation_tokens_total{{engine="0"}} {output}
vllm:request_success_total{{engine="0"}} {requests}
vllm:prefix_cache_queries_total{{engine="0"}} {queries}
vllm:prefix_cache_hits_total{{engine="0"}} {hits}
vllm:time_to_first_token_seconds_bucket{{engine="0",le="0.1"}} {fast}
vllm:time_to_first_token_seconds_bucket{{engine="0",le="0.5"}} {all}
vllm:time_to_first_token_seconds_bucket{{engine="0",le="+Inf"}} {all}
"""


class _Metrics(http.server.BaseHTTPRequestHandler):
    """First the one, then the other reading."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.keys.append(self.headers.get("Authorization"))
        status, body = server.answers[min(len(server.keys), len(server.answers)) - 1]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def metrics() -> Iterator[Any]:
    """A server of /metrics; ``answers`` are given in turn, ``keys`` collects what was offered."""
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Metrics)
    server.keys = []
    first = METRICS.format(
        prompt=1_000_000, output=200_000, requests=100, queries=500, hits=100, fast=10, all=20
    )
    second = METRICS.format(
        prompt=1_500_000, output=300_000, requests=150, queries=900, hits=300, fast=20, all=40
    )
    server.answers = [(200, first), (200, second)]
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds that pass at once."""
    from qwenhost.cli import top_view

    class Clock:
        now = 100.0

        def sleep(self, seconds: float) -> None:
            self.now += seconds

        def monotonic(self) -> float:
            return self.now

    monkeypatch.setattr(top_view, "time", Clock())


@pytest.mark.usefixtures("at_once")
class TestTop:
    def look(self, cli: Cli, *words: str) -> Any:
        done = cli("top", "prod", "--once", *words)
        assert done.code == 0, done.err
        return done

    def test_rates_are_differences_over_the_interval(self, cli: Cli, service: Any, metrics: Any) -> None:
        """0.5 M prompt tokens, 0.1 M tokens and 50 requests in 2 s; 200 of 400 blocks asked were found."""
        service(base_url=metrics.url)
        load = self.look(cli, "--json").data["load"]
        assert load["seconds"] == 2.0
        assert (load["running"], load["waiting"], load["kv_cache_usage"]) == (3, 2, 0.25)
        assert load["prompt_tokens_per_s"] == 250_000
        assert load["generation_tokens_per_s"] == 50_000
        assert load["requests_per_s"] == 25
        assert load["prefix_hit"] == 0.5
        # 10 of the 20 new requests below 0.1 s: the median is the bucket's end; 90 % are 4/5 into the next.
        assert load["latency_s"]["ttft"] == {"p50": pytest.approx(0.1), "p90": pytest.approx(0.1 + 0.8 * 0.4)}

    def test_people_read_the_same(self, cli: Cli, service: Any, metrics: Any) -> None:
        service(base_url=metrics.url, restarts=2)
        said = self.look(cli).text
        for words in (
            "prod: ready, 2 restarts",
            "3 running, 2 waiting, 25.0/s",
            "250,000 in/s, 50,000 out/s",
            "25.0% of the KV cache, prefix hits 50%",
            "ttft p50 100 ms, p90 420 ms",
            "1.500 M in, 0.300 M out",
            "none are used",
        ):
            assert words in said

    def test_a_longer_interval_makes_smaller_rates(self, cli: Cli, service: Any, metrics: Any) -> None:
        """The same tokens in 10 s."""
        service(base_url=metrics.url)
        load = self.look(cli, "--json", "--interval", "10").data["load"]
        assert load["generation_tokens_per_s"] == 10_000

    def test_the_bill(self, cli: Cli, service: Any, metrics: Any, saved: Path, known: Any) -> None:
        """1.5 Mtok in and 0.3 Mtok out at Sonnet's 3 and 15 USD are 9 USD; rent is by the hour."""
        since = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)).isoformat()
        home = service(base_url=metrics.url, ready_at=since)
        shutil.copy(saved, home.plan_file)
        bill = self.look(cli, "--json").data["bill"]
        rates = known.api_prices["claude-sonnet-4.6"].periods[-1].usd_per_mtok
        assert (rates.input, rates.output) == (3.0, 15.0)
        assert bill["api_usd"] == pytest.approx(1.5 * 3 + 0.3 * 15)
        assert bill["hours"] == pytest.approx(2.0, abs=0.01)
        hourly = json.loads(saved.read_bytes())["inputs"]["gpu_price"]["usd_per_gpu_hour"] * 2
        assert bill["usd_per_hour"] == hourly
        assert bill["usd"] == pytest.approx(2 * hourly, rel=0.01)
        assert bill["usd_per_mtok"] == pytest.approx(bill["usd"] / 1.8)

    def test_without_a_plan_the_rent_is_unknown(self, cli: Cli, service: Any, metrics: Any) -> None:
        service(base_url=metrics.url)
        assert "rent unknown: the service has no plan with a price" in self.look(cli).text

    def test_an_idle_service_has_no_latency(self, cli: Cli, service: Any, metrics: Any) -> None:
        metrics.answers = metrics.answers[:1]
        service(base_url=metrics.url)
        load = self.look(cli, "--json").data["load"]
        assert (load["latency_s"], load["prefix_hit"], load["requests_per_s"]) == ({}, None, 0)
        assert "ttft" not in self.look(cli).text

    def test_after_a_restart_counters_begin_anew(self, cli: Cli, service: Any, metrics: Any) -> None:
        """Fewer tokens than before: all of them are of the interval."""
        metrics.answers.reverse()
        service(base_url=metrics.url)
        assert self.look(cli, "--json").data["load"]["generation_tokens_per_s"] == 200_000 / 2

    @pytest.mark.parametrize("how", ["variable", "file"])
    def test_the_key_is_offered_and_never_shown(
        self,
        *,
        cli: Cli,
        service: Any,
        metrics: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        how: str,
    ) -> None:
        service(base_url=metrics.url)
        words: tuple[str, ...] = ()
        if how == "variable":
            monkeypatch.setenv("QWENHOST_API_KEY", KEY)
        else:
            path = tmp_path / "key"
            path.touch(mode=0o600)
            path.write_text(f"ops: {KEY}\n")
            words = ("--api-key-file", str(path))
        for form in ((), ("--json",)):
            done = self.look(cli, *words, *form)
            assert KEY not in done.out + done.err
        assert set(metrics.keys) == {f"Bearer {KEY}"}

    @pytest.mark.parametrize(
        ("status", "says"), [(401, "QWENHOST_API_KEY or --api-key-file"), (500, "See its log.")]
    )
    def test_a_refusal_is_4(self, *, cli: Cli, service: Any, metrics: Any, status: int, says: str) -> None:
        metrics.answers = [(status, "no")]
        service(base_url=metrics.url)
        cli("top", "prod", "--once").refused(f"/metrics answered {status}", says, code=4)

    def test_nobody_there_is_4(self, cli: Cli, service: Any) -> None:
        service(base_url="http://127.0.0.1:9")
        cli("top", "prod", "--once").refused("http://127.0.0.1:9/metrics", "qwenhost status prod", code=4)

    def test_ctrl_c_while_watching_is_130(
        self, cli: Cli, service: Any, metrics: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service(base_url=metrics.url)
        monkeypatch.setattr("qwenhost.cli.top_view.show", _interrupt)
        assert top_command.command.name == "top"
        done = cli("top", "prod")
        assert (done.code, done.err.strip()) == (130, "Interrupted.")

    @pytest.mark.parametrize("value", ["0.1", "0", "-2", "nan", "inf", "often"])
    def test_a_wrong_interval(self, cli: Cli, value: str) -> None:
        cli("top", "--interval", value).refused("--interval")


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


class TestDoctor:
    def test_every_check_in_both_forms(self, cli: Cli) -> None:
        """The same names and outcomes; exit 4 exactly where one failed."""
        shown, data = cli("doctor"), cli("doctor", "--json")
        checks = data.data
        assert len(checks) >= 5
        for check in checks:
            assert check["status"] in {"ok", "warn", "fail", "skip"}
            assert check["name"] in shown.text
            if check["status"] == "fail":
                assert check["remedy"], check
        assert shown.code == data.code == (4 if any(c["status"] == "fail" for c in checks) else 0)

    def test_without_gpus_the_machine_is_refused(self, cli: Cli, saved: Path) -> None:
        """For a plan of two H200 on a machine that has none."""
        done = cli("doctor", saved)
        assert done.code == 4
        assert "FAIL" in done.out

    def test_a_port_that_is_taken(self, cli: Cli, metrics: Any) -> None:
        port = metrics.server_address[1]
        rows = {c["name"]: c for c in cli("doctor", "--port", port, "--target", "cpu", "--json").data}
        taken = next(c for c in rows.values() if str(port) in c["detail"])
        assert taken["status"] == "fail"

    @pytest.mark.parametrize("port", ["0", "65536", "http"])
    def test_a_wrong_port(self, cli: Cli, port: str) -> None:
        cli("doctor", "--port", port).refused("--port")


class TestServe:
    """What is refused before anything starts; starts are tested with real processes elsewhere."""

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--host", "0.0.0.0"), "key"),
            (("--metrics-port", "9100", "--metrics-host", "0.0.0.0"), "--metrics-host"),
            (("--ssl-certfile", "cert.pem"), "--ssl-keyfile"),
            (("--port", "70000"), "70000 is not in the range 1<=x<=65535"),
            (("--ready-timeout", "0"), "0.0 is not in the range x>0"),
            (("--drain-timeout", "nan"), "'nan' is no finite number"),
            (("--max-body-mib", "inf"), "'inf' is no finite number"),
            (("--max-requests-per-minute", "-1"), "-1 is not in the range x>=0"),
            (("--name", "a b"), "--name 'a b': not a service name"),
            (("--engine", "other"), "'other' is not one of 'vllm', 'simulated'"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
    )
    def test_wrong_values(self, cli: Cli, saved: Path, words: tuple[str, ...], says: str) -> None:
        simulated = () if "--engine" in words else ("--engine", "simulated")
        cli("serve", saved, *simulated, *words).refused(says)

    def test_a_cpu_needs_a_small_checkpoint(self, cli: Cli) -> None:
        cli("serve", "--target", "cpu").refused("--target cpu needs a small checkpoint", "--model DIR")
        cli("serve", "--target", "cpu", "--engine", "simulated").refused("--engine simulated needs a plan")

    def test_a_name_that_runs_is_taken(self, cli: Cli, saved: Path, service: Any) -> None:
        """And the running one is not touched."""
        home = service()
        before = home.state_file.read_bytes()
        cli("serve", saved, "--engine", "simulated", "--name", "prod").refused(
            "a service named 'prod' is already running", "qwenhost stop prod"
        )
        assert home.state_file.read_bytes() == before

    def test_a_refused_start_gives_its_lock_back(self, cli: Cli, saved: Path) -> None:
        """The next one of the name may come."""
        done = cli("serve", saved, "--name", "x")
        assert done.code == 4, "vLLM for two H200 cannot run here"
        with (state_root(os.environ) / "x" / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
