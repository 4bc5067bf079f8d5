"""Header-only checkpoints of the 122B, written once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import header_files
import pytest

from qwenhost.profiles import load_catalog
from qwenhost.tensors import Imported, import_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.facts import Catalog


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture(scope="session")
def imported(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Imported]:
    """``imported("fp8")``: the profile of the 122B under a scheme."""
    known: dict[str, Imported] = {}

    def once(scheme: str) -> Imported:
        if scheme not in known:
            folder = header_files.write_checkpoint(tmp_path_factory.mktemp("checkpoints") / scheme, scheme)
            known[scheme] = import_checkpoint(str(folder), catalog, today=header_files.TODAY)
        return known[scheme]

    return once
