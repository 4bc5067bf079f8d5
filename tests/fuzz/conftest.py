"""A long run is not cut off by the time limit of a normal one."""

from __future__ import annotations

import pytest
from fuzz_kit import FUZZ_S


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No limit where the user asked for hours."""
    if FUZZ_S:
        for item in items:
            if "fuzz" in item.path.parts:
                item.add_marker(pytest.mark.timeout(0))
