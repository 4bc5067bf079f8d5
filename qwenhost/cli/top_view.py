"""What ``qwenhost top`` shows: one look at a service, as data and as a table."""

from __future__ import annotations

import datetime as dt
import http.client
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.launcher.load import Bill, Load, Reading, load_between, read_metrics
from qwenhost.units import format_gib

if TYPE_CHECKING:
    import click
    from rich.table import Table

    from qwenhost.discovery.gpu_watch import GpuReading, GpuWatch
    from qwenhost.launcher.state import ServiceState

SONNET = "claude-sonnet-4.6"


@dataclass(frozen=True)
class Screen:
    """One look."""

    state: ServiceState
    load: Load
    bill: Bill
    gpus: tuple[GpuReading, ...] = ()
    gpus_note: str = ""
    """Why there are none."""

    def as_data(self) -> dict[str, Any]:
        """For ``--json``; derived figures included."""
        bill = msgspec.to_builtins(self.bill)
        bill |= {
            name: getattr(self.bill, name) for name in ("usd", "usd_per_mtok", "api_usd", "api_usd_per_mtok")
        }
        return {
            "name": self.state.name,
            "status": self.state.status,
            "label": self.state.label,
            "basis": "simulated" if self.state.engine == "simulated" else "measured",
            "restarts": self.state.restarts,
            "load": self.load,
            "bill": bill,
            "gpus": self.gpus,
            "gpus_note": self.gpus_note,
        }

    def table(self) -> Table:
        """For people."""
        from rich.markup import escape
        from rich.table import Table as RichTable

        load, bill = self.load, self.bill
        table = RichTable(
            box=None, pad_edge=False, show_header=False, title=escape(self.state.label), title_justify="left"
        )
        restarts = f", {self.state.restarts} restarts" if self.state.restarts else ""
        table.add_row("service", f"{self.state.name}: {self.state.status}{restarts}")
        table.add_row(
            "requests", f"{load.running} running, {load.waiting} waiting, {load.requests_per_s:.1f}/s"
        )
        tokens = f"{load.prompt_tokens_per_s:,.0f} in/s, {load.generation_tokens_per_s:,.0f} out/s"
        table.add_row("tokens", tokens)
        hit = "" if load.prefix_hit is None else f", prefix hits {load.prefix_hit:.0%}"
        table.add_row("cache", f"{load.kv_cache_usage:.1%} of the KV cache{hit}")
        for name, row in load.latency_s.items():
            figures = ", ".join(f"{quantile} {_seconds(value)}" for quantile, value in row.items())
            table.add_row(name.replace("_", "-"), figures)
        for gpu in self.gpus:
            table.add_row(f"GPU {gpu.index}", gpu_line(gpu))
        if self.gpus_note:
            table.add_row("GPUs", self.gpus_note)
        table.add_row(
            "so far", f"{bill.prompt_mtok:.3f} M in, {bill.generation_mtok:.3f} M out, {bill.hours:.2f} h"
        )
        table.add_row("rent", _rent(bill))
        table.add_row(bill.api_name, _api(bill))
        return table


class Watch:
    """Looks at one service.

    Raises:
        BadInputError: no such service.
    """

    def __init__(self, ctx: click.Context, name: str, api_key: str | None) -> None:
        from qwenhost.cli import wiring
        from qwenhost.cost.api_cost import rates_on
        from qwenhost.launcher.state import ServiceHome, state_root

        self._home = ServiceHome(name, root=state_root(os.environ))
        self._api_key = api_key
        self._usd_per_hour = self._rent()
        sonnet = wiring.catalog(ctx).api_prices[SONNET]
        rates = rates_on(sonnet, dt.datetime.now(dt.UTC).date(), 0.0)
        self._api = (sonnet.name, rates.input, rates.output)
        self._last: Reading | None = None
        self._gpus, self._gpus_note = self._open_gpus()

    def look(self, interval_s: float) -> Screen:
        """What went on since the last look, or over an interval that begins now.

        Raises:
            UnavailableError: the engine does not answer.
        """
        before = self._last or self._read()
        time.sleep(interval_s)
        after = self._last = self._read()
        name, input_rate, output_rate = self._api
        bill = Bill(
            hours=self._hours(),
            usd_per_hour=self._usd_per_hour,
            prompt_mtok=after.value("prompt_tokens") / 1e6,
            generation_mtok=after.value("generation_tokens") / 1e6,
            api_name=name,
            api_usd_per_mtok_input=input_rate,
            api_usd_per_mtok_output=output_rate,
        )
        gpus = self._gpus.read() if self._gpus else ()
        return Screen(self._state(), load_between(before, after), bill, gpus, self._gpus_note)

    def _open_gpus(self) -> tuple[GpuWatch | None, str]:
        """NVML, open as long as this process lives, for an engine that uses GPUs."""
        state = self._state()
        if state.engine == "simulated" or state.target == "cpu":
            return None, "none are used"
        from qwenhost.discovery.gpu_watch import GpuWatch

        try:
            return GpuWatch(), ""
        except UnavailableError as error:
            return None, error.message

    def _read(self) -> Reading:
        from qwenhost.launcher.health import Endpoint

        state = self._state()
        try:
            endpoint = Endpoint(state.base_url, self._api_key, ssl_certfile=state.ssl_certfile)
        except OSError as error:
            raise UnavailableError(
                f"{state.ssl_certfile}: {error.strerror or error}",
                remedy="It is the certificate that the service was started with; put it back.",
            ) from error
        try:
            status, body = endpoint.get("/metrics", timeout_s=10.0)
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(
                f"{state.base_url}/metrics: {str(error) or type(error).__name__}",
                remedy=f"See what it does: qwenhost status {state.name}",
            ) from error
        if status != http.client.OK:
            raise UnavailableError(
                f"{state.base_url}/metrics answered {status}",
                remedy="Set QWENHOST_API_KEY or --api-key-file." if status == 401 else "See its log.",
            )
        return read_metrics(body.decode(errors="replace"), time.monotonic())

    def _state(self) -> ServiceState:
        from qwenhost.launcher.state import current_state

        state = current_state(self._home)
        if state is None:
            raise BadInputError(
                f"no service named {self._home.name!r}", remedy="List them with: qwenhost status"
            )
        return state

    def _hours(self) -> float:
        """Since the engine's counters began; its start is not counted among them."""
        since = self._state().ready_at
        if since is None:
            return 0.0
        return (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(since)).total_seconds() / 3600

    def _rent(self) -> float | None:
        from qwenhost.plan import load_plan

        if not self._home.plan_file.is_file():
            return None
        inputs = load_plan(self._home.plan_file).inputs
        return inputs.gpu_price.usd_per_gpu_hour * inputs.node.gpu_count if inputs.gpu_price else None


def show(watch: Watch, interval_s: float) -> None:
    """In place, until Ctrl-C."""
    from rich.live import Live

    from qwenhost.cli.output import console

    with Live(console=console(), auto_refresh=False) as live:
        while True:
            live.update(watch.look(interval_s).table(), refresh=True)


def _rent(bill: Bill) -> str:
    if bill.usd_per_hour is None or bill.usd is None:
        return "unknown: the service has no plan with a price"
    each = "" if bill.usd_per_mtok is None else f", {bill.usd_per_mtok:,.2f} USD per million tokens so far"
    return f"{bill.usd_per_hour:.2f} USD/h, {bill.usd:,.2f} USD so far{each}"


def _api(bill: Bill) -> str:
    each = "" if bill.api_usd_per_mtok is None else f", {bill.api_usd_per_mtok:,.2f} USD per million"
    return f"{bill.api_usd:,.2f} USD for the same tokens{each} (list, no cache)"


def gpu_line(gpu: GpuReading) -> str:
    """One GPU for people, with colours."""
    if gpu.fault:
        return f"[red]{gpu.fault}[/]"
    parts = [] if gpu.utilisation is None else [f"{gpu.utilisation:.0%} busy"]
    if gpu.memory_used_bytes is not None and gpu.memory_total_bytes is not None:
        parts.append(f"{format_gib(gpu.memory_used_bytes)} of {format_gib(gpu.memory_total_bytes)}")
    if gpu.power_w is not None:
        limit = "" if gpu.power_limit_w is None else f" of {gpu.power_limit_w:.0f}"
        parts.append(f"{gpu.power_w:.0f}{limit} W")
    if gpu.temperature_c is not None:
        parts.append(f"{gpu.temperature_c} \N{DEGREE SIGN}C")
    if gpu.slowed_by:
        parts.append(f"[yellow]slowed by {', '.join(gpu.slowed_by)}[/]")
    if gpu.xids:
        parts.append(f"[red]Xid {', '.join(map(str, gpu.xids))}: see dmesg[/]")
    return ", ".join(parts) or "NVML says nothing"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
