"""A stand-in for ``vllm``: an HTTP server with faults on demand, for what no CPU run can show.

Takes vLLM's argv; what it does is told by the environment variable STAND_IN, a JSON object:

- ``log``: file whose text it prints first; ``exit``: then end with this code.
- ``exit_unless_flag``: print ``log`` and exit only while the flag is missing from argv.
- ``ignore_sigterm``: true; ``children``: number of workers it starts.
- ``after_s`` + ``then``: ``exit0``, ``503`` or ``stall``, so many seconds after the start.
- ``chat``: status of every chat completion; ``says``: what is logged then.
- ``once``: a file; the fault happens only if it does not exist yet.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULTS = json.loads(os.environ.get("STAND_IN", "{}"))
STATE = {"health": 200, "running": 0, "tokens": 0}


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(STATE["health"], {})
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": "stand-in"}]})
        elif self.path == "/metrics":
            running = f'vllm:num_requests_running{{engine="0"}} {STATE["running"]}.0\n'
            tokens = f'vllm:generation_tokens_total{{engine="0"}} {STATE["tokens"]}.0\n'
            self.answer(200, running + tokens)
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if "chat" in FAULTS:
            sys.stdout.write(FAULTS.get("says", ""))
            sys.stdout.flush()
            self.answer(FAULTS["chat"], {"error": "no chat template"})
            return
        self.answer(200, {"choices": [{"message": {"content": "Hi"}}]})

    def answer(self, status: int, body: object) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def fault_is_due() -> bool:
    once = FAULTS.get("once")
    if once and Path(once).exists():
        return False
    if once:
        Path(once).touch()
    flag = FAULTS.get("exit_unless_flag")
    return flag is None or flag not in sys.argv


def later(what: str) -> None:
    time.sleep(FAULTS["after_s"])
    if what == "exit0":
        os._exit(0)
    elif what == "503":
        STATE["health"] = 503
    elif what == "stall":
        STATE["running"] = 1


def main() -> None:
    if FAULTS.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for _ in range(FAULTS.get("children", 0)):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    due = fault_is_due()
    if "log" in FAULTS and (due or "exit" not in FAULTS):
        sys.stdout.write(Path(FAULTS["log"]).read_text())
        sys.stdout.flush()
    if "exit" in FAULTS and due:
        os._exit(FAULTS["exit"])
    if "then" in FAULTS and due:
        threading.Thread(target=later, args=(FAULTS["then"],), daemon=True).start()
    port = int(sys.argv[sys.argv.index("--port") + 1])
    ThreadingHTTPServer(("127.0.0.1", port), Api).serve_forever()


if __name__ == "__main__":
    main()
