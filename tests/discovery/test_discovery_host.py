"""The host: memory limits of containers, and where weights go."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from qwenhost.discovery import discover_host, model_cache_folder
from qwenhost.discovery.host import memory_bytes

GIB = 2**30


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HOME": "/h"}, "/h/.cache/huggingface/hub"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/x", "HF_HOME": "/f"}, "/f/hub"),
        ({"HOME": "/h", "HF_HOME": "/f", "HF_HUB_CACHE": "/c"}, "/c"),
        ({"HOME": "/h", "HF_HOME": ""}, "/h/.cache/huggingface/hub"),
    ],
)
def test_where_weights_go(environ: dict[str, str], folder: str) -> None:
    """The same precedence as huggingface_hub."""
    assert model_cache_folder(environ) == Path(folder)


def test_disk_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    """The disk it would be on is what counts."""
    host = discover_host(model_cache=tmp_path / "not/there", environ={})
    assert host.cache_path == str(tmp_path / "not/there")
    assert host.cache_free_bytes > 0


def cgroup(folder: Path, **files: str) -> None:
    """Write a control group's files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("memory_", "memory.")).write_text(text)


def test_memory_limit_of_a_container(tmp_path: Path) -> None:
    """The lowest limit on the way up counts; page cache that can be given back is available."""
    cgroup(tmp_path, memory_max="max\n")
    cgroup(
        tmp_path / "pod",
        memory_max=str(GIB),
        memory_current=str(3 * GIB // 4),
        memory_stat=f"anon 1\ninactive_file {GIB // 4}\n",
    )
    cgroup(tmp_path / "pod/container", memory_max=str(4 * GIB), memory_current="0", memory_stat="")
    membership = tmp_path / "membership"
    membership.write_text("0::/pod/container\n")
    assert memory_bytes(tmp_path, membership) == (GIB, GIB // 2)


def test_no_memory_limit(tmp_path: Path) -> None:
    """Without control groups the machine's memory is ours."""
    total, available = memory_bytes(tmp_path, tmp_path / "absent")
    assert total == psutil.virtual_memory().total
    assert 0 < available <= total
