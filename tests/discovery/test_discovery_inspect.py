"""``qwenhost inspect`` through NVIDIA's own binding, on machines made of a stub library."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from build_stub import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    VERSION_MISMATCH,
    h200,
    rtx_pro_6000,
)
from discovery_cli import run_cli

from qwenhost.node import node_from_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from discovery_cli import Outcome

    Inspect = Callable[..., Outcome]


def test_two_h200_on_nvlink(inspect: Inspect) -> None:
    """Every figure of the GPUs arrives, the links are counted, the catalog is matched."""
    found = inspect([h200(0), h200(1, used_bytes=5 * 10**9)])
    assert found.exit_code == 0
    node = found.node
    assert node["schema"] == "qwenhost.node/1"
    assert node["description"] == "2x NVIDIA H200"
    assert (node["driver_version"], node["cuda_version"]) == ("580.95.05", "13.0")
    assert node["gpus"][1] == {
        "index": 1,
        "name": "NVIDIA H200",
        "spec": "h200",
        "uuid": "GPU-10000000-1111-2222-3333-444444444444",
        "pci_address": "00000000:19:00.0",
        "memory_total_bytes": 150_754_820_096,
        "memory_used_bytes": 5 * 10**9,
        "compute_capability": 9.0,
        "mig_enabled": False,
        "power_limit_w": 700.0,
        "processes": [],
        "processes_hidden": False,
    }
    assert node["links"] == [
        {"a": 0, "b": 1, "kind": "nvlink", "nvlinks": 18, "path": "SYS", "peer_to_peer": True}
    ]
    assert node["interconnect"] == "nvlink"
    assert node["notes"] == []
    assert node_from_json(found.stdout.encode()).is_uniform


def test_four_rtx_pro_6000_on_pcie(inspect: Inspect) -> None:
    """Without NVLink the PCIe path is what counts, and the slowest pair names the interconnect."""
    node = inspect([rtx_pro_6000(i) for i in range(4)], topology={(0, 1): 40, (2, 3): 30}).node
    assert {(link["a"], link["b"]): link["path"] for link in node["links"]} == {
        (0, 1): "NODE", (0, 2): "SYS", (0, 3): "SYS", (1, 2): "SYS", (1, 3): "SYS", (2, 3): "PHB",
    }  # fmt: skip
    assert {link["kind"] for link in node["links"]} == {"pcie"}
    assert node["interconnect"] == "pcie"


def test_bridged_pairs_are_not_a_fabric(inspect: Inspect) -> None:
    """NVLink bridges join pairs; between the pairs there is only PCIe, so the node is as slow as that."""
    gpus = [h200(i, nvlink_switch=0, nvlink_gpus={i ^ 1: 6}, nvlink_down=2) for i in range(4)]
    node = inspect(gpus).node
    assert {(link["a"], link["b"]): link["nvlinks"] for link in node["links"]} == {
        (0, 1): 6, (0, 2): 0, (0, 3): 0, (1, 2): 0, (1, 3): 0, (2, 3): 6,
    }  # fmt: skip
    assert node["interconnect"] == "pcie"


def test_links_that_the_driver_refuses(inspect: Inspect) -> None:
    """Ports that are up without a fabric manager are of no use, and the note says what to check."""
    node = inspect([h200(0), h200(1)], p2p={(0, 1, 2): 5, (0, 1, 0): 5}).node
    assert node["links"][0] | {"path": ""} == {
        "a": 0, "b": 1, "kind": "pcie", "nvlinks": 0, "path": "", "peer_to_peer": False,
    }  # fmt: skip
    assert "nvidia-fabricmanager" in node["notes"][0]


def test_one_gpu_has_no_interconnect(inspect: Inspect) -> None:
    """A link needs two ends."""
    node = inspect([h200(0)]).node
    assert (node["links"], node["interconnect"]) == ([], "none")


def test_mixed_models(inspect: Inspect) -> None:
    """Unequal GPUs are shown as they are, with a note that a plan needs equal ones."""
    found = inspect([h200(0), rtx_pro_6000(1)])
    assert found.node["description"] == "1x NVIDIA H200 + 1x NVIDIA RTX PRO 6000 Blackwell Server Edition"
    assert not node_from_json(found.stdout.encode()).is_uniform
    assert found.node["notes"] == [
        "The GPUs differ; a plan needs equal ones. Choose with CUDA_VISIBLE_DEVICES."
    ]


def test_numbers_of_mixed_models_depend_on_cudas_order(inspect: Inspect) -> None:
    """CUDA numbers by speed unless told otherwise; NVML numbers by bus."""
    gpus = [h200(0), rtx_pro_6000(1)]
    loose = inspect(gpus, environ={"CUDA_VISIBLE_DEVICES": "0,1"}).node
    fixed = inspect(gpus, environ={"CUDA_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}).node
    assert any("CUDA_DEVICE_ORDER=PCI_BUS_ID" in note for note in loose["notes"])
    assert not any("CUDA_DEVICE_ORDER=PCI_BUS_ID" in note for note in fixed["notes"])


def test_mig_is_seen(inspect: Inspect) -> None:
    """A GPU cut into slices is marked, with the command that makes it whole."""
    node = inspect([h200(0, mig=True), h200(1)]).node
    assert [gpu["mig_enabled"] for gpu in node["gpus"]] == [True, False]
    assert "nvidia-smi -i 0 -mig 0" in node["notes"][0]


def test_a_mig_slice_is_named(inspect: Inspect) -> None:
    """``CUDA_VISIBLE_DEVICES=MIG-...`` shows the GPU that the slice is cut from."""
    gpus = [h200(0), h200(1, mig=True, mig_uuid="MIG-abc")]
    node = inspect(gpus, environ={"CUDA_VISIBLE_DEVICES": "MIG-abc"}).node
    assert [(gpu["index"], gpu["mig_enabled"]) for gpu in node["gpus"]] == [(1, True)]


def test_processes(inspect: Inspect) -> None:
    """Compute and graphics processes are listed once each, by name where the name can be known."""
    me = os.getpid()
    gpu = h200(0, compute={me: 10**9, 2**22 + 1: -1}, graphics={me: 10**9, 2**22 + 2: 4096})
    shown = inspect([gpu]).node["gpus"][0]["processes"]
    assert [(p["pid"], p["used_bytes"]) for p in shown] == [
        (me, 10**9), (2**22 + 1, None), (2**22 + 2, 4096),
    ]  # fmt: skip
    assert shown[0]["name"] not in ("", "?")
    assert shown[1]["name"] == "?"


def test_processes_that_may_not_be_listed(inspect: Inspect) -> None:
    """No rights to the list is not the same as nobody there."""
    denied = {
        "nvmlDeviceGetComputeRunningProcesses_v3": NO_PERMISSION,
        "nvmlDeviceGetPowerManagementLimit": NO_PERMISSION,
    }
    gpu = inspect([h200(0, errors=denied)]).node["gpus"][0]
    assert (gpu["processes"], gpu["processes_hidden"]) == ([], True)
    assert gpu["power_limit_w"] is None


def test_memory_shared_with_the_cpu(inspect: Inspect) -> None:
    """A GPU without memory of its own has the host's."""
    gb10 = h200(
        0,
        name="NVIDIA GB10",
        capability=(12, 1),
        errors={"nvmlDeviceGetMemoryInfo": NOT_SUPPORTED, "nvmlDeviceGetMigMode": NOT_SUPPORTED},
    )
    node = inspect([gb10]).node
    assert node["gpus"][0]["memory_total_bytes"] == node["host"]["ram_total_bytes"]
    assert node["gpus"][0]["spec"] == "gb10"


def test_a_gpu_that_the_catalog_does_not_know(inspect: Inspect) -> None:
    """It is shown, unmatched, and a note says so."""
    node = inspect([h200(0, name="NVIDIA Z9000")]).node
    assert node["gpus"][0]["spec"] is None
    assert "NVIDIA Z9000: not in the catalog" in node["notes"][0]


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        ("1", [1]),
        ("3,0", [3, 0]),
        ("GPU-2", [2]),
        ("GPU-20000000-1111-2222-3333-444444444444, 1", [2, 1]),
        ("0,-1,2", [0]),
        ("0,7,2", [0]),
    ],
)
def test_cuda_visible_devices(inspect: Inspect, value: str, indices: list[int]) -> None:
    """Numbers, UUIDs and prefixes of them choose and order; the first that names nothing ends the list."""
    node = inspect([h200(i) for i in range(4)], environ={"CUDA_VISIBLE_DEVICES": value}).node
    assert [gpu["index"] for gpu in node["gpus"]] == indices
    assert len(node["links"]) == len(indices) * (len(indices) - 1) // 2


def test_hidden_gpus_are_mentioned(inspect: Inspect) -> None:
    """Whoever wonders where a GPU went finds the reason."""
    node = inspect([h200(0), h200(1), h200(2)], environ={"CUDA_VISIBLE_DEVICES": "1"}).node
    assert node["notes"] == ["CUDA_VISIBLE_DEVICES='1' hides GPU 0, 2."]


def test_a_gpu_named_twice(inspect: Inspect) -> None:
    """CUDA would start with no device at all; we say which entry is wrong."""
    found = inspect([h200(0)], environ={"CUDA_VISIBLE_DEVICES": "0,0"})
    assert found.exit_code == 2
    assert "names GPU 0 twice" in found.stderr


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles", "GPU-"])
def test_all_gpus_hidden(inspect: Inspect, value: str) -> None:
    """The host is shown, the reason given, and only --require-gpu makes it an error."""
    environ = {"CUDA_VISIBLE_DEVICES": value}
    found = inspect([h200(0), h200(1)], environ=environ)
    assert found.exit_code == 0
    assert found.node["gpus"] == []
    assert found.node["notes"] == [f"CUDA_VISIBLE_DEVICES={value!r} hides all 2 GPUs of this machine"]
    assert inspect([h200(0), h200(1)], "--require-gpu", environ=environ).exit_code == 4


def test_no_driver(tmp_path: Any) -> None:
    """A machine without NVIDIA's library shows its CPU, memory and disk."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LD_LIBRARY_PATH": str(tmp_path)}
    found = run_cli("inspect", "--json", env=env)
    assert found.exit_code == 0
    assert found.node["host"]["cpu_cores_logical"] >= 1
    assert found.node["host"]["cache_path"] == f"{tmp_path}/.cache/huggingface/hub"
    assert found.node["host"]["cache_free_bytes"] > 0
    assert found.node["notes"] == ["no NVIDIA driver is installed here."]
    required = run_cli("inspect", "--require-gpu", env=env)
    assert required.exit_code == 4
    assert "--gpus 2xH200" in required.stderr


def test_a_driver_without_gpus(inspect: Inspect) -> None:
    """The driver is there and finds nothing."""
    found = inspect([])
    assert found.exit_code == 0
    assert found.node["notes"] == ["NVIDIA driver 580.95.05 is loaded but finds no GPU"]


@pytest.mark.parametrize(
    ("errors", "says"),
    [
        ({"nvmlInitWithFlags": DRIVER_NOT_LOADED}, "the NVIDIA driver is not loaded"),
        ({"nvmlInitWithFlags": VERSION_MISMATCH}, "have different versions"),
        ({"nvmlInitWithFlags": NO_PERMISSION}, "this process may not use the NVIDIA driver"),
        ({"nvmlDeviceGetHandleByIndex_v2": NO_PERMISSION}, "2 GPUs are present, but this process"),
        ({"nvmlDeviceGetCount_v2": 999}, "NVML says 'Unknown Error'"),
        ({"nvmlDeviceGetMemoryInfo": 999}, "GPU 0: memory: NVML says 'Unknown Error'"),
    ],
)
def test_broken_drivers(inspect: Inspect, errors: dict[str, int], says: str) -> None:
    """What is broken is an error with its meaning and a next step; the host is shown all the same."""
    found = inspect([h200(0), h200(1)], errors=errors)
    assert found.exit_code == 4
    assert says in found.stderr
    assert len(found.stderr.splitlines()) == 2
    assert found.node["gpus"] == []
    assert found.node["host"]["ram_total_bytes"] > 0


def test_a_lost_gpu(inspect: Inspect) -> None:
    """It is an error that names the GPU, and the others can be used without it."""
    lost = h200(1, errors={"nvmlDeviceGetHandleByIndex_v2": GPU_IS_LOST})
    found = inspect([h200(0), lost, h200(2)])
    assert found.exit_code == 4
    assert "GPU 1: it has fallen off the bus" in found.stderr
    assert "CUDA_VISIBLE_DEVICES" in found.stderr
    rest = inspect([h200(0), lost, h200(2)], environ={"CUDA_VISIBLE_DEVICES": "0,2"})
    assert rest.exit_code == 0
    assert [gpu["index"] for gpu in rest.node["gpus"]] == [0, 2]


def test_a_gpu_lost_while_it_is_read(inspect: Inspect) -> None:
    """The same words when it goes after it was listed."""
    found = inspect([h200(0, errors={"nvmlDeviceGetName": GPU_IS_LOST})])
    assert found.exit_code == 4
    assert "GPU 0: it has fallen off the bus" in found.stderr


def test_gpus_of_other_containers(inspect: Inspect) -> None:
    """NVML lists GPUs that a container was not given; CUDA counts without them, and so do we."""
    other = h200(0, errors={"nvmlDeviceGetHandleByIndex_v2": NO_PERMISSION})
    node = inspect([other, h200(1), h200(2)], environ={"CUDA_VISIBLE_DEVICES": "1"}).node
    assert [gpu["index"] for gpu in node["gpus"]] == [2]


def test_tables_for_people(inspect: Inspect) -> None:
    """The tables say what the JSON says, without escape codes when piped."""
    text = inspect([h200(0, compute={os.getpid(): 2**30}), h200(1)], tables=True).stdout
    for words in ("2x NVIDIA H200 (driver 580.95.05, CUDA 13.0)", "NV18", "140.4 GiB", "1.0 GiB", "700 W"):
        assert words in text
    assert "\x1b" not in text


def test_a_described_node(inspect: Inspect) -> None:
    """``--gpus`` stands in for NVML."""
    node = inspect([], "--gpus", "2xH200").node
    assert (node["origin"], node["interconnect"], node["host"]) == ("described", "nvlink", None)
    assert node["gpus"][0]["spec"] == "h200"
    assert "described" in inspect([], "--gpus", "2xH200", tables=True).stdout
