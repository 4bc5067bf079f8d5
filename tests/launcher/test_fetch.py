"""``qwenhost fetch`` and what may go wrong between two machines, two processes and a disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub, running_hub
from test_weights import FETCHED, FILES, safetensors

from qwenhost.errors import UnavailableError
from qwenhost.launcher.hub_retry import Retries, retry_after_s
from qwenhost.launcher.weights import fetch_checkpoint, remove_leftovers

FETCH = [sys.executable, "-m", "qwenhost.cli.main", "fetch"]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub(dict(FILES)) as found:
        yield found


@pytest.fixture
def start(hub: Hub, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """The command in a process of its own, on one cache for all."""

    def call(*words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        flags = ["--endpoint", hub.url, "--cache", str(tmp_path / "cache")]
        return subprocess.Popen(
            [*before, *FETCH, "owner/tiny", *flags, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return call


Start = Callable[..., subprocess.Popen[str]]


def test_fetch_prints_where_the_checkpoint_is(start: Start) -> None:
    """JSON on stdout, progress on stderr."""
    out, err = start("--json").communicate(timeout=60)
    found = json.loads(out)
    assert {path.name for path in Path(found["path"]).iterdir()} == FETCHED
    assert (found["repo_id"], found["revision"], found["verified_by"]) == ("owner/tiny", COMMIT, "sha256")
    assert "fetching owner/tiny at 0123456789ab: 5 files" in err
    out, _ = start("--offline", "--revision", COMMIT).communicate(timeout=60)
    assert out.strip() == found["path"]


def test_two_fetches_at_once_fetch_once(start: Start, hub: Hub) -> None:
    """The second waits for the first and finds everything there."""
    hub.pause_s = 0.3
    both = [start("--json"), start("--json")]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert json.loads(said[0][0])["path"] == json.loads(said[1][0])["path"]
    assert sorted(name for name, _ in hub.sent) == sorted(FETCHED)
    assert sum("being fetched by another process" in err for _, err in said) == 1


def killed_half_way(start: Start, hub: Hub, tmp_path: Path) -> Path:
    """The part of a 30 MB shard that a killed fetch leaves: what it read of the half that was sent."""
    hub.files["model-1.safetensors"] = big_shard("a", 30_000_000)
    hub.pause_s = 3.0
    first = start()
    wait_until(lambda: any(part.stat().st_size for part in tmp_path.rglob("*.qwenhost-part")))
    first.send_signal(signal.SIGKILL)
    first.communicate()
    hub.pause_s = 0.0
    hub.sent.clear()
    (part,) = tmp_path.rglob("*.qwenhost-part")
    assert 0 < part.stat().st_size < 30_000_000
    return part


def test_a_killed_fetch_goes_on_and_holds_no_lock(start: Start, hub: Hub, tmp_path: Path) -> None:
    """``kill -9`` half-way through a shard: the next fetch asks for the rest of it alone."""
    part = killed_half_way(start, hub, tmp_path)
    have = part.stat().st_size
    second = start()
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert ("model-1.safetensors", f"bytes={have}-") in hub.sent
    assert [name for name, _ in hub.sent].count("model-1.safetensors") == 1
    assert "model-1.safetensors: going on after" in err
    assert not part.exists()
    (whole,) = tmp_path.rglob("snapshots/*/model-1.safetensors")
    assert whole.read_bytes() == hub.files["model-1.safetensors"]


def test_a_mirror_that_cannot_continue_sends_all_of_it(start: Start, hub: Hub, tmp_path: Path) -> None:
    """It answers 200 to a Range: the part begins anew, and the shard is whole."""
    killed_half_way(start, hub, tmp_path)
    hub.no_ranges = True
    second = start()
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    (whole,) = tmp_path.rglob("snapshots/*/model-1.safetensors")
    assert whole.read_bytes() == hub.files["model-1.safetensors"]


def test_a_part_with_wrong_bytes_is_found_and_fetched_again(start: Start, hub: Hub, tmp_path: Path) -> None:
    """The checksum is of the whole shard; what does not match it is named and fetched from its first byte."""
    part = killed_half_way(start, hub, tmp_path)
    part.write_bytes(b"x" * part.stat().st_size)
    second = start()
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert "model-1.safetensors: damaged, fetching it again" in err
    assert hub.sent[-1] == ("model-1.safetensors", "")
    (whole,) = tmp_path.rglob("snapshots/*/model-1.safetensors")
    assert whole.read_bytes() == hub.files["model-1.safetensors"]


def test_a_part_longer_than_its_file_begins_anew(start: Start, hub: Hub, tmp_path: Path) -> None:
    """Never kept, whatever wrote it."""
    part = killed_half_way(start, hub, tmp_path)
    part.write_bytes(b"x" * 40_000_000)
    second = start()
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert ("model-1.safetensors", "") in hub.sent
    (whole,) = tmp_path.rglob("snapshots/*/model-1.safetensors")
    assert whole.read_bytes() == hub.files["model-1.safetensors"]


def test_a_half_that_is_being_written_stays(tmp_path: Path) -> None:
    """Open here, or touched a moment ago by another machine that shares the cache."""
    for name in ("open", "fresh", "left"):
        (tmp_path / f"{name}.incomplete").touch()
    for name in ("open", "left"):
        os.utime(tmp_path / f"{name}.incomplete", (1, 1))
    with (tmp_path / "open.incomplete").open():
        remove_leftovers(tmp_path)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["fresh", "open"]


def test_a_damaged_shard_is_named_and_fetched_again_by_the_command(start: Start, hub: Hub) -> None:
    """One wrong byte on the way."""
    hub.wrong["model-2.safetensors"] = 1
    process = start()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "model-2.safetensors: damaged, fetching it again" in err


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again_when_it_says(hub: Hub, tmp_path: Path, status: int) -> None:
    """Twice refused with Retry-After, once without; then all goes well."""
    hub.busy = [(status, "7"), (status, "3"), (status, "")]
    waited: list[float] = []
    fetch_checkpoint("owner/tiny", cache=tmp_path, endpoint=hub.url, retries=Retries(sleep=waited.append))
    assert waited == [7.0, 3.0, 4.0]


def test_a_hub_that_stays_busy_is_given_up(hub: Hub, tmp_path: Path) -> None:
    """Four attempts, and no longer wait than a minute each."""
    hub.status = 503
    waited: list[float] = []
    with pytest.raises(UnavailableError, match="answered 503"):
        fetch_checkpoint("owner/tiny", cache=tmp_path, endpoint=hub.url, retries=Retries(sleep=waited.append))
    assert waited == [1.0, 2.0, 4.0]
    hub.status, hub.busy = 200, [(429, "3600")]
    with pytest.raises(UnavailableError, match="limits the rate"):
        fetch_checkpoint("owner/tiny", cache=tmp_path, endpoint=hub.url, retries=Retries(sleep=waited.append))
    assert len(waited) == 3


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120.0), ("Thu, 01 Jan 1970 00:02:00 GMT", 60.0), ("", None), ("soon", None)],
)
def test_retry_after_is_a_number_or_a_date(header: str, seconds: float | None) -> None:
    """RFC 9110; the clock stands at one minute past the epoch."""
    assert retry_after_s(header, now=60.0) == seconds


def test_a_disk_that_fills_up_is_said_and_resumed(start: Start, hub: Hub, tmp_path: Path) -> None:
    """A tmpfs of 4 MiB and a mirror that does not tell sizes, so that nothing warns before."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("no user namespaces here, so no tmpfs of our own")
    hub.hide_sizes = True
    hub.files["model-1.safetensors"] = big_shard("a", 8 * 2**20)
    (tmp_path / "cache").mkdir()
    mount = f'mount -t tmpfs -o size=4m tmpfs {tmp_path / "cache"} && exec "$@"'
    process = start(before=("unshare", "-rm", "sh", "-c", mount, "sh"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert "the disk is full" in err
    assert "Traceback" not in err


def test_a_cache_that_cannot_be_written_is_named(hub: Hub, tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").touch()
    done = subprocess.run(
        [*FETCH, "owner/tiny", "--endpoint", hub.url, "--cache", str(tmp_path / "file")],
        capture_output=True, text=True, check=False, timeout=60, env=os.environ,
    )  # fmt: skip
    assert (done.returncode, "cannot write" in done.stderr) == (2, True)


def test_progress_goes_to_stderr_only_where_someone_looks(start: Start) -> None:
    """Piped: no progress bar."""
    _, err = start().communicate(timeout=60)
    assert "\r" not in err
    assert "%|" not in err


def big_shard(name: str, size: int) -> bytes:
    header = json.dumps({name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


def wait_until(reached: Callable[[], bool], *, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_big_shard_is_a_shard(tmp_path: Path) -> None:
    """The helper above writes what the real reader accepts."""
    assert len(big_shard("a", 4)) == len(safetensors("a")) - len("F32") + len("U8")
