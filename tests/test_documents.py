"""Our own JSON documents are read strictly, and alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qwenhost.cost import load_comparison
from qwenhost.errors import BadInputError
from qwenhost.measurements import load_measurements
from qwenhost.plan import load_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOADERS = [(load_plan, "plan"), (load_measurements, "measurements"), (load_comparison, "comparison")]


@pytest.mark.parametrize(("load", "kind"), LOADERS)
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"schema": "\xff"}', "not a "),
        (b"{", "not a "),
        (b"[]", "not a "),
        (b'{"schema": "else/9"}', "schema is 'else/9'"),
        (b'{"schema": "qwenhost.KIND/1", "surprise": 1}', "not a "),
    ],
)
def test_a_bad_document_is_one_sentence(
    tmp_path: Path, load: Callable[[Path], object], kind: str, data: bytes, said: str
) -> None:
    """Wrong bytes, JSON, shape, version or key: the file is named and a remedy given."""
    path = tmp_path / "document.json"
    path.write_bytes(data.replace(b"KIND", kind.encode()))
    with pytest.raises(BadInputError, match=r"document\.json: ") as caught:
        load(path)
    assert said in caught.value.message
    assert caught.value.remedy
