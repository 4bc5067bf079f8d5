"""Each check on facts made for it, and the whole list on this machine."""

from __future__ import annotations

import resource
import socket
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from qwenhost.discovery import discover_host
from qwenhost.errors import UnavailableError
from qwenhost.launcher.checks import Check, Subject
from qwenhost.launcher.checks_engine import (
    check_capability,
    check_driver,
    check_gpus,
    check_vllm,
    package_version,
    torch_cuda_version,
)
from qwenhost.launcher.checks_host import check_open_files, check_port, check_ports, check_ram, check_shm
from qwenhost.launcher.checks_weights import check_weights_source
from qwenhost.launcher.preflight import preflight, require_passed
from qwenhost.node import Gpu, GpuProcess, Host, Node
from qwenhost.units import GIB, MIB

if TYPE_CHECKING:
    from pathlib import Path

    from qwenhost.plan import Candidate, Plan


@pytest.fixture
def candidate(plan: Plan) -> Candidate:
    return plan.chosen


@pytest.fixture
def host() -> Host:
    changes = {"ram_available_bytes": 100 * GIB, "shm_free_bytes": 16 * GIB, "cache_free_bytes": 500 * 10**9}
    return msgspec.structs.replace(discover_host(), cache_path="/nonexistent", **changes)


def node(count: int = 2, *, used_gib: int = 0, capability: float = 9.0, **changes: Any) -> Node:
    """Some H200s as NVML would report them."""
    holder = (GpuProcess(pid=4711, name="python", used_bytes=used_gib * GIB),) if used_gib else ()
    gpus = tuple(
        Gpu(
            index=i, name="NVIDIA H200", spec="h200", memory_total_bytes=140 * GIB,
            memory_used_bytes=used_gib * GIB, compute_capability=capability, processes=holder,
        )
        for i in range(count)
    )  # fmt: skip
    fields = {"interconnect": "nvlink", "driver_version": "580.65", "cuda_version": "13.0", "origin": "nvml"}
    return Node(gpus=gpus, description=f"{count}x NVIDIA H200", **{**fields, **changes})


def test_a_free_port_passes_and_a_taken_one_names_its_holder() -> None:
    """This very process listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check = check_port("127.0.0.1", port)
        assert (check.status, f"127.0.0.1:{port}: address already in use" in check.detail) == ("fail", True)
        assert "(pid " in check.remedy
    assert check_port("127.0.0.1", port).status == "ok"


def test_the_metrics_port_must_be_free_and_another_one() -> None:
    """Found before the weights are loaded, not when the first scrape fails."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (_, metrics) = check_ports(Subject(port=1, metrics_port=port))
        assert (metrics.name, metrics.status) == ("metrics port", "fail")
        assert metrics.remedy.startswith("Choose another --metrics-port")
    assert check_ports(Subject(port=port, metrics_port=port))[1].detail == f"{port} is the engine's own port"
    assert [check.status for check in check_ports(Subject(port=port))] == ["ok"]


def test_an_address_of_another_machine_fails() -> None:
    """192.0.2.0/24 is for documentation."""
    assert check_port("192.0.2.1", 8000).status == "fail"


def test_gpus_must_be_enough_and_free(candidate: Candidate) -> None:
    """The plan takes two; 92 % of 140 GiB is 128.8 GiB, so 12 GiB held elsewhere is too much."""
    assert candidate.parallelism.world_size == 2
    assert check_gpus(node(2), candidate).status == "ok"
    assert "uses 2 GPUs, 1 are visible" in check_gpus(node(1), candidate).detail
    held = check_gpus(node(2, used_gib=12), candidate)
    assert (held.status, "128.00 GiB free" in held.detail) == ("fail", True)
    assert "python (4711)" in held.remedy


@pytest.mark.parametrize(
    ("have", "need", "status"), [(9.0, 8.9, "ok"), (8.0, 8.9, "fail"), (12.0, 0.0, "ok")]
)
def test_the_checkpoint_must_have_kernels(have: float, need: float, status: str) -> None:
    """FP8 on an A100 has none."""
    assert check_capability(node(capability=have), need).status == status


@pytest.mark.parametrize(
    ("driver_cuda", "torch_cuda", "status"),
    [("13.0", "13.0", "ok"), ("12.4", "12.9", "ok"), ("12.9", "13.0", "fail"), ("13.1", None, "ok")],
)
def test_the_driver_must_know_torchs_cuda(driver_cuda: str, torch_cuda: str | None, status: str) -> None:
    """Minor versions are compatible with one another, major ones are not."""
    assert check_driver(node(cuda_version=driver_cuda), torch_cuda).status == status


@pytest.mark.parametrize(
    ("free", "processes", "status"),
    [(16 * GIB, 2, "ok"), (64 * MIB, 2, "fail"), (64 * MIB, 1, "warn"), (512 * MIB, 2, "warn")],
)
def test_shared_memory_of_a_container_is_too_small(
    host: Host, free: int, processes: int, status: str
) -> None:
    """Docker gives 64 MiB unless told otherwise."""
    assert check_shm(msgspec.structs.replace(host, shm_free_bytes=free), processes).status == status


def test_little_ram_is_a_warning(host: Host) -> None:
    """Two workers and the server at 4 GiB each."""
    assert check_ram(msgspec.structs.replace(host, ram_available_bytes=12 * GIB), 2).status == "ok"
    assert check_ram(msgspec.structs.replace(host, ram_available_bytes=11 * GIB), 2).status == "warn"


def test_open_files() -> None:
    """Some connections and some hundred shards."""
    assert check_open_files(1024).status == "warn"
    assert check_open_files(65536).status == "ok"
    assert check_open_files(resource.RLIM_INFINITY).detail == "no limit"


def test_weights_must_fit_the_disk(host: Host) -> None:
    """127 GB to fetch, 500 GB free; then 100 GB free."""
    subject = Subject(repo_id="Qwen/Qwen3.5-122B-A10B-FP8", weights_bytes=127 * 10**9)
    assert check_weights_source(subject, host, {}).status == "ok"
    small = msgspec.structs.replace(host, cache_free_bytes=100 * 10**9)
    check = check_weights_source(subject, small, {})
    assert (check.status, "HF_HOME" in check.remedy) == ("fail", True)
    assert check_weights_source(subject, small, {"HF_HUB_OFFLINE": "1"}).status == "skip"
    assert check_weights_source(Subject(), small, {}).status == "ok"


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment with vLLM 0.33.0 on torch for CUDA 13.0, as far as files tell."""
    packages = tmp_path / "env/lib/python3.12/site-packages"
    (packages / "torch").mkdir(parents=True)
    (packages / "torch/version.py").write_text("__version__ = '2.14.0+cu130'\ncuda: Optional[str] = '13.0'\n")
    (packages / "vllm-0.33.0.dist-info").mkdir()
    (tmp_path / "env/bin").mkdir()
    (tmp_path / "env/bin/vllm").write_text(f"#!{tmp_path}/env/bin/python\n")
    return tmp_path / "env/bin/vllm"


def test_versions_are_read_without_starting_vllm(environment: Path) -> None:
    """Starting it takes ten seconds."""
    assert package_version(str(environment), "vllm") == "0.33.0"
    assert torch_cuda_version(str(environment)) == "13.0"


def test_a_linked_program_is_followed_to_its_environment(environment: Path, tmp_path: Path) -> None:
    """A copy in ~/bin names its Python in the first line."""
    copy = tmp_path / "elsewhere/vllm"
    copy.parent.mkdir()
    copy.write_text(environment.read_text())
    assert package_version(str(copy), "vllm") == "0.33.0"


@pytest.mark.parametrize(("planned", "status"), [("0.33.0", "ok"), ("0.33.1", "ok"), ("0.32.0", "warn")])
def test_another_version_than_the_plans_is_a_warning(environment: Path, planned: str, status: str) -> None:
    """Cache arithmetic and flags differ between minor versions."""
    subject = Subject(vllm_bin=str(environment), vllm_version=planned)
    assert check_vllm(subject)[0].status == status


def test_the_first_failure_becomes_the_error_and_names_the_others() -> None:
    """With a way out."""
    checks = [
        Check(name="port", status="ok", detail="free"),
        Check(name="gpus", status="fail", detail="no driver", remedy="Install one."),
        Check(name="ram", status="warn", detail="little"),
        Check(name="weights", status="fail", detail="no space"),
    ]
    with pytest.raises(UnavailableError, match=r"gpus: no driver \(failed too: weights\)") as caught:
        require_passed(checks)
    assert "--force" in caught.value.remedy
    require_passed([checks[0], checks[2]])


def test_a_simulated_engine_needs_little() -> None:
    """No GPU, no vLLM, no weights."""
    checks = preflight(Subject(engine="simulated", port=1), None, {})
    assert [check.name for check in checks] == ["port", "open files"]
