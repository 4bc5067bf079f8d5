"""What a process may use of its machine: limits of control groups, and GPUs left visible by CUDA's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from qwenhost.discovery.host import memory_bytes
from qwenhost.discovery.visible import names_by_number, visible_positions
from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20
UUIDS = ("GPU-aaaa1111", "GPU-aaaa2222", "GPU-bbbb3333")
SLICES = {"MIG-one": UUIDS[0], "MIG-two": UUIDS[0], "MIG-far": "GPU-elsewhere"}


class Memory:
    """Of the machine: so much that every limit below is lower."""

    total = 64 * 1024 * MIB
    available = 32 * 1024 * MIB


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", Memory)


def group(folder: Path, **files: str) -> None:
    """A control group with these files; ``memory_max`` is ``memory.max``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


@pytest.mark.parametrize(
    ("files", "total", "available"),
    [
        # 1000 MiB less 400 used leaves 600
        ({"memory_max": f"{1000 * MIB}\n", "memory_current": f"{400 * MIB}\n"}, 1000, 600),
        # of those used, 150 are files nobody reads: 750
        (
            {"memory_max": str(1000 * MIB), "memory_current": str(400 * MIB),
             "memory_stat": f"anon 5\ninactive_file {150 * MIB}\nactive_file {90 * MIB}\n"},
            1000, 750,
        ),
        # more used than the limit, lowered since: nothing is left, and never less
        ({"memory_max": str(100 * MIB), "memory_current": str(400 * MIB)}, 100, 0),
        # what is used is not known: all of the limit
        ({"memory_max": str(1000 * MIB)}, 1000, 1000),
        # statistics without that line
        ({"memory_max": str(1000 * MIB), "memory_current": "0", "memory_stat": "anon 5\n"}, 1000, 1000),
        ({"memory_max": "max\n", "memory_current": str(400 * MIB)}, 65536, 32768),
        ({"memory_current": str(400 * MIB)}, 65536, 32768),
        ({"memory_max": "", "memory_current": ""}, 65536, 32768),
        # a limit above what the machine has limits nothing
        ({"memory_max": str(2**40), "memory_current": "0"}, 65536, 32768),
    ],
)  # fmt: skip
def test_the_limit_of_one_group(tmp_path: Path, files: dict[str, str], total: int, available: int) -> None:
    """In MiB, by hand."""
    group(tmp_path / "box", **files)
    (tmp_path / "membership").write_text("0::/box\n")
    assert memory_bytes(tmp_path, tmp_path / "membership") == (total * MIB, available * MIB)


@pytest.mark.parametrize(
    ("membership", "total", "available"),
    [
        # the outer group allows 2000 with 1900 used, the inner 1000 with 100 used: the least of each
        ("0::/outer/inner\n", 1000, 100),
        ("12:cpu:/x\n0::/outer/inner\n", 1000, 100),
        ("0::/outer\n", 2000, 100),
        ("0::/\n", 65536, 32768),
        ("0::/gone/since\n", 65536, 32768),
        # version 1 alone has no such line
        ("4:memory:/outer/inner\n", 65536, 32768),
        ("", 65536, 32768),
    ],
)
def test_every_group_above_counts(tmp_path: Path, membership: str, total: int, available: int) -> None:
    group(tmp_path / "outer", memory_max=str(2000 * MIB), memory_current=str(1900 * MIB))
    group(tmp_path / "outer" / "inner", memory_max=str(1000 * MIB), memory_current=str(100 * MIB))
    (tmp_path / "membership").write_text(membership)
    assert memory_bytes(tmp_path, tmp_path / "membership") == (total * MIB, available * MIB)


@pytest.mark.parametrize(
    ("value", "positions", "stopped_at"),
    [
        (None, [0, 1, 2], None),
        ("", [], None),
        ("  ", [], None),
        ("0,1,2", [0, 1, 2], None),
        ("2,0", [2, 0], None),  # in the order they are named
        (" 1 , 2 ", [1, 2], None),
        ("+1", [1], None),
        # everything behind the first word that names none is hidden
        ("0,3,1", [0], "3"),
        ("-1", [], None),
        ("0,-1,1", [0], None),
        ("-2", [], "-2"),
        ("one,1", [], "one"),
        ("0,,1", [0], ""),
        # a beginning is enough where it fits one, and no more than one
        ("GPU-bbbb", [2], None),
        ("gpu-AAAA2", [1], None),
        ("GPU-aaaa", [], "GPU-aaaa"),
        ("GPU-cccc", [], "GPU-cccc"),
        ("0x1", [], "0x1"),
        # slices are of their GPU, which counts once
        ("MIG-one", [0], None),
        ("MIG-one,MIG-two,1", [0, 1], None),
        ("mig-one", [], "mig-one"),
        ("MIG-far", [], "MIG-far"),
        ("MIG-none", [], "MIG-none"),
    ],
)
def test_what_cuda_would_enumerate(value: str | None, positions: list[int], stopped_at: str | None) -> None:
    """And a note names the word that hid the rest, except for -1, the usual way to ask for that."""
    found, notes = visible_positions(value, UUIDS, SLICES.get)
    assert found == positions
    assert [f": {stopped_at!r} names no single GPU" in note for note in notes] == (
        [] if stopped_at is None else [True]
    )


@pytest.mark.parametrize(("value", "twice"), [("0,0", 0), ("1,GPU-aaaa2", 1), ("2,0,2", 2), ("MIG-one,0", 0)])
def test_a_gpu_named_twice_is_refused(value: str, twice: int) -> None:
    """CUDA would see none at all; by number and by name it is the same GPU."""
    with pytest.raises(
        BadInputError, match=f"CUDA_VISIBLE_DEVICES='{value}' names GPU {twice} twice"
    ) as caught:
        visible_positions(value, UUIDS, SLICES.get)
    assert caught.value.remedy == "Name each GPU once."


@pytest.mark.parametrize(
    ("value", "numbered"),
    [(None, False), ("", False), ("0", True), ("GPU-1,2", True), ("GPU-aaaa1111", False), ("MIG-1", False)],
)
def test_whether_gpus_are_numbered(value: str | None, numbered: bool) -> None:
    """Only then does CUDA_DEVICE_ORDER matter."""
    assert names_by_number(value) is numbered


@given(
    st.lists(st.sampled_from(["0", "1", "2", "7", "-1", "GPU-b", "GPU-a", "MIG-one", "x", ""]), max_size=6)
)
@settings(max_examples=60)
def test_more_words_never_show_fewer(words: list[str]) -> None:
    """What is visible is there, once, and begins with what the shorter list shows."""
    try:
        whole, notes = visible_positions(",".join(words), UUIDS, SLICES.get)
    except BadInputError:
        reject()  # a GPU named twice, as above
    assert len(set(whole)) == len(whole)
    assert set(whole) <= {0, 1, 2}
    assert len(notes) <= 1
    shorter, _ = visible_positions(",".join(words[:-1]), UUIDS, SLICES.get)
    assert whole[: len(shorter)] == shorter
