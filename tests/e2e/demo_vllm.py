"""``make demo-vllm``: serve, probe and compare on real vLLM, on CPU, with a tiny random-weight model.

The path is real and every step is our own command line; the figures are a toy's, and the report says
so: what was measured is neither the model nor the hardware of the plan it is priced with.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from e2e import engine_env, tiny_model
from qwenhost.launcher.build import free_port

QWENHOST = str(Path(sys.executable).with_name("qwenhost"))
SERVICE = "demo-vllm"


def step(*words: str) -> None:
    """Show a command and run it."""
    print(f"\n$ qwenhost {' '.join(words)}", flush=True)
    subprocess.run([QWENHOST, *words], check=True)


def main() -> None:
    """Start, measure, stop, price."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, default=Path("demo-out/vllm"))
    out: Path = parser.parse_args().output_dir
    out.mkdir(parents=True, exist_ok=True)
    os.environ["QWENHOST_VLLM_BIN"] = str(engine_env.build())
    model = tiny_model.tiny_model()
    url = f"http://127.0.0.1:{(port := free_port())}"
    plan, measured, compared, report = (
        str(out / name) for name in ("plan.json", "measurements.json", "comparison.json", "report.html")
    )
    step("plan", "--gpus", "2xH200", "--workload", "chat", "--save", plan)
    step(
        "serve", "--target", "cpu", "--model", str(model), "--port", str(port), "--name", SERVICE, "--detach"
    )
    try:
        step(
            "probe", url, "--concurrency", "4", "--requests", "32", "--input-tokens", "128",
            "--output-tokens", "32", "--gpus", "CPU", "--save", measured,
            # A laptop's CPU keeps no GPU's service level; the toy is given one it can keep.
            "--slo-ttft-ms", "60000", "--slo-tpot-ms", "5000",
        )  # fmt: skip
    finally:
        step("stop", SERVICE)
    step("compare", "--plan", plan, "--measurements", measured, "--save", compared, "--html", report)
    print(f"\nReport: {report}")


if __name__ == "__main__":
    main()
