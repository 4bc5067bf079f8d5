"""systemd's notification protocol (``sd_notify(3)``), over its datagram socket, without a library."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwenhost.launcher.events import ServiceEvent


class Notifier:
    """Tells a service manager what goes on; without one, nothing.

    Args:
        environ: NOTIFY_SOCKET names the socket (``@`` begins an abstract one); WATCHDOG_USEC is the time
            within which the manager wants to hear from process WATCHDOG_PID.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = environ.get("WATCHDOG_USEC", "")
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_s = int(usec) / 1e6 if usec.isdigit() and mine and address else 0.0

    @property
    def beat_every_s(self) -> float | None:
        """Half the watchdog's time, as ``sd_watchdog_enabled(3)`` advises; None = no watchdog."""
        return self._watchdog_s / 2 or None

    def beat(self) -> None:
        """The loop is alive."""
        self._send("WATCHDOG=1")

    def tell(self, event: ServiceEvent) -> None:
        """Ready, stopping, and a line for ``systemctl status`` on every change."""
        lines = [f"STATUS={' '.join(event.message.split())}"]
        if event.kind == "ready":
            lines.append("READY=1")
        elif event.kind in ("stopping", "failed"):
            lines.append("STOPPING=1")
        self._send("\n".join(lines))

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A manager that is restarting, or a full socket, must not end the service.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode(), self._address)
