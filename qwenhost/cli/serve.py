"""``qwenhost serve``: run an engine from a plan and keep it running."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli.options import json_option, node_options, workload_options
from qwenhost.cli.output import say
from qwenhost.cli.ranges import FloatRange

if TYPE_CHECKING:
    from qwenhost.launcher.state import ServiceState

_ENGINE = click.Choice(["vllm", "simulated"])
_PATH = click.Path(path_type=Path)
_SECONDS = FloatRange(0, min_open=True)


@click.command(name="serve")
@click.argument("plan_path", metavar="[PLAN]", required=False, type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; another one needs a key.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port.")
@click.option("--engine", default="vllm", show_default=True, type=_ENGINE, help="What answers.")
@click.option(
    "--target", default="gpu", show_default=True, type=click.Choice(["gpu", "cpu"]),
    help="cpu: vLLM's CPU build with a small checkpoint, for trials.",
)  # fmt: skip
@click.option("--model", metavar="DIR", help="Local checkpoint instead of the plan's.")
@click.option(
    "--served-model-name",
    "served_model_names",
    multiple=True,
    help="Name that clients use; repeat for aliases.",
)
@click.option("--load-format", help="vLLM's, e.g. dummy for random weights (--target cpu).")
@click.option(
    "--api-key-file", type=_PATH,
    help="Keys, one a line, plain or NAME: KEY; read again when it changes. Or set QWENHOST_API_KEY.",
)  # fmt: skip
@click.option("--ssl-certfile", type=_PATH, help="Certificate (PEM), to speak TLS.")
@click.option("--ssl-keyfile", type=_PATH, help="Its key, without a password.")
@click.option(
    "--max-body-mib", type=FloatRange(0, min_open=True), default=64.0, show_default=True,
    help="Largest request.",
)  # fmt: skip
@click.option(
    "--max-requests-per-minute", type=click.IntRange(0), default=0, show_default=True,
    help="Of each key, by each API server process; 0 is no limit.",
)  # fmt: skip
@click.option(
    "--metrics-port", type=click.IntRange(1, 65535), help="Serve our metrics and the engine's there, as one."
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Another one needs a key.")
@click.option("--name", default="default", show_default=True, help="Of the service, for status and stop.")
@click.option("--detach", is_flag=True, help="Leave it running in the background once it is ready.")
@click.option("--vllm-bin", envvar="QWENHOST_VLLM_BIN", help="vLLM's program. Also QWENHOST_VLLM_BIN.")
@click.option("--extra-arg", "extra_args", multiple=True, help="A further word for the engine; repeatable.")
@click.option("--ready-timeout", type=_SECONDS, default=3600.0, show_default=True, help="Seconds to ready.")
@click.option("--drain-timeout", type=_SECONDS, default=30.0, show_default=True, help="Seconds to finish.")
@click.option(
    "--stall-timeout", type=_SECONDS, default=180.0, show_default=True,
    help="Seconds without a token while requests run, before the engine counts as hung.",
)  # fmt: skip
@click.option("--startup-seconds", type=FloatRange(0), help="Of a simulated engine.")
@click.option("--force", is_flag=True, help="Start although a check failed.")
@node_options
@workload_options
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, plan_path: Path | None, as_json: bool, detach: bool, **options: Any
) -> int:
    r"""Start and supervise an engine from PLAN, or from a plan made for this machine.

    Ready means that a real completion came back. A crash, a hang or an unasked exit leads to a restart
    with backoff; a start that fails for want of memory takes the plan's sized fallbacks, and says so.

    Ctrl-C drains and stops; a second one kills. Exit codes: 0 stopped after being ready, 130 interrupted
    before, 2 a flag or path is wrong, 4 the engine cannot run here, 1 it failed for good later.

    \b
    qwenhost serve plan.json
    qwenhost serve plan.json --detach --name prod --api-key-file ~/key
    qwenhost serve --gpus 2xH200 --engine simulated
    qwenhost serve --target cpu --model ./tiny --load-format dummy
    """
    from qwenhost.cli.service_setup import prepare
    from qwenhost.cli.service_view import view
    from qwenhost.launcher import service

    launch, home, lock = prepare(ctx, plan_path, options)
    if detach:
        pid = service.serve_detached(launch, home, lock=lock)
        try:
            state = service.wait_until_ready(home, pid, on_progress=lambda state: say(_progress(state)))
        except KeyboardInterrupt:
            say(f"It goes on starting in the background; end it with: qwenhost stop {home.name}")
            raise
        _announce(state, as_json=as_json)
        return 0
    shown = view(as_json=as_json, on_ready=lambda: _how_to_call(home.read_state()))
    try:
        outcome = service.serve(launch, home, on_event=shown.show)
    finally:
        shown.close()
        os.close(lock)
    return outcome.exit_code


def _progress(state: ServiceState) -> str:
    """Where a start in the background stands, and when it should be ready."""
    from qwenhost.units import format_seconds

    expected = state.expected
    if expected is None:
        return state.progress
    return f"{state.progress} (ready after about {format_seconds(expected.ready_s)}, {expected.basis})"


def _announce(state: ServiceState, *, as_json: bool) -> None:
    from qwenhost.cli.output import write_json

    if as_json:
        write_json(state)
    else:
        _how_to_call(state)


def _how_to_call(state: ServiceState | None) -> None:
    if state is None:
        return
    key = ' -H "Authorization: Bearer $QWENHOST_API_KEY"' if state.api_key_required else ""
    key += f" --cacert {state.ssl_certfile}" if state.ssl_certfile else ""
    body = f'{{"model": "{state.model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    click.echo(f"{state.base_url}  {state.label}")
    click.echo(f"  curl {state.base_url}/v1/chat/completions{key} -H 'Content-Type: application/json' \\")
    click.echo(f"    -d '{body}'")
    click.echo(f"  qwenhost probe {state.base_url}")
    click.echo(f"  qwenhost stop {state.name}")
