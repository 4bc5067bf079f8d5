"""Units: GB is 10^9 bytes, GiB is 2^30 bytes; conversion happens once, at the edge."""

from __future__ import annotations

from typing import Final

KB: Final = 10**3
MB: Final = 10**6
GB: Final = 10**9
TB: Final = 10**12
KIB: Final = 2**10
MIB: Final = 2**20
GIB: Final = 2**30

TOKENS_PER_MTOK: Final = 10**6
HOURS_PER_MONTH: Final = 730.0  # 8,760 h per year / 12, as the cloud vendors bill
DAYS_PER_MONTH: Final = HOURS_PER_MONTH / 24
SECONDS_PER_HOUR: Final = 3600.0


def gib(n_bytes: float) -> float:
    """Bytes as GiB."""
    return n_bytes / GIB


def format_gib(n_bytes: float, digits: int = 2) -> str:
    """``68719476736`` as ``64.00 GiB``."""
    return f"{n_bytes / GIB:,.{digits}f} GiB"


def format_bytes(n_bytes: float) -> str:
    """Bytes in the largest binary unit that keeps the figure at one or more."""
    for unit, size in (("TiB", 2**40), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if abs(n_bytes) >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes:,.0f} B"


def format_usd(usd: float) -> str:
    """Dollars with as many decimals as the size needs: ``$5,825``, ``$3.99``, ``$0.0788``."""
    size = abs(usd)
    if usd < 0:
        return f"-{format_usd(size)}"
    if size >= 1000:
        return f"${usd:,.0f}"
    if size >= 1:
        return f"${usd:,.2f}"
    if size >= 0.01:
        return f"${usd:.4f}"
    return "$0" if usd == 0 else f"${usd:.3g}"


def format_seconds(seconds: float) -> str:
    """A duration as people say it: ``850 ms``, ``12.3 s``, ``4 min 05 s``, ``2 h 10 min``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
