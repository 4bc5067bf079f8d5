"""Liveness of an engine: it answers /health, and while requests run its steps go on.

vLLM's /health stays 200 while a worker hangs in a collective operation. What tells is the count of steps:
if requests run and it has not moved for --stall-seconds, the engine is dead though it answers. A saturated
engine answers late but keeps stepping. The standard library alone; a state file lies between two calls.
"""

import argparse
import json
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request

SERIES = re.compile(r"^(vllm:[a-z_]+)\{([^}]*)\} (\S+)$", re.MULTILINE)
ENGINE = re.compile(r'engine="([^"]*)"')
RUNNING = "vllm:num_requests_running"
STEPS = "vllm:iteration_tokens_total_count"


def main() -> int:
    """0 alive, 1 with a sentence on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key-file", default="/etc/qwenhost/keys/metrics-key")
    parser.add_argument("--stall-seconds", type=float, default=600.0)
    parser.add_argument("--timeout", type=float, default=12.0)
    parser.add_argument("--state", default="/tmp/alive.json")  # noqa: S108 - the container's own
    options = parser.parse_args()
    try:
        ask(options.url + "/health", options.timeout)
    except (OSError, urllib.error.URLError) as error:
        return dead(f"/health: {error}")
    try:
        with open(options.key_file, encoding="utf-8") as file:
            page = ask(options.url + "/metrics", options.timeout, key=file.read().strip())
    except (OSError, urllib.error.URLError):
        return 0  # /health has answered: a scrape that fails is no reason to end an engine
    stalled = stalled_engines(page, load(options.state), options.state, options.stall_seconds, time.time())
    return dead(stalled) if stalled else 0


def ask(url: str, timeout_s: float, key: str = "") -> str:
    """The body of a page; the certificate is the pod's own and made for another name."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    context = ssl._create_unverified_context() if url.startswith("https") else None
    with urllib.request.urlopen(request, timeout=timeout_s, context=context) as answer:
        return answer.read().decode("utf-8", "replace")


def stalled_engines(page: str, seen: dict, state: str, stall_s: float, now: float) -> str:
    """A sentence about engines that run requests without stepping, or nothing; what was seen is kept."""
    running, steps = totals(page, RUNNING), totals(page, STEPS)
    kept, sentences = {}, []
    for engine, count in steps.items():
        before, since = seen.get(engine, (None, now))
        if running.get(engine, 0) <= 0 or before != count:
            since = now
        kept[engine] = (count, since)
        if now - since >= stall_s:
            sentences.append(
                f"engine {engine}: {running[engine]:.0f} requests run, no step for {now - since:.0f} s"
            )
    with open(state + ".new", "w", encoding="utf-8") as file:
        json.dump(kept, file)
    os.replace(state + ".new", state)
    return "; ".join(sentences)


def totals(page: str, name: str) -> dict:
    """Sums of a metric by engine."""
    found = {}
    for series, labels, value in SERIES.findall(page):
        if series == name:
            engine = ENGINE.search(labels)
            key = engine.group(1) if engine else "0"
            found[key] = found.get(key, 0.0) + float(value)
    return found


def load(state: str) -> dict:
    """What the call before saw."""
    try:
        with open(state, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def dead(sentence: str) -> int:
    """Say why, and fail."""
    sys.stderr.write(sentence + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
