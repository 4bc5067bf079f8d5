"""The real documents of the fuzz tests serve here as well."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS / name) for name in ("fuzz", "probe", "kubernetes")]
