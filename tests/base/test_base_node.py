"""The machine as a value, and the names people give it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.cli.main import run
from qwenhost.errors import BadInputError
from qwenhost.node import (
    Gpu,
    Node,
    find_gpu_spec,
    load_node,
    match_gpu_spec,
    node_from_json,
    normalise_gpu_name,
    parse_gpus,
)
from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from pathlib import Path

    from qwenhost.facts import Catalog


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.mark.parametrize(
    ("text", "count", "spec"),
    [
        ("H200", 1, "h200"),
        ("2xH200", 2, "h200"),
        ("2XH200", 2, "h200"),
        ("2*h200", 2, "h200"),
        ("2 x H200", 2, "h200"),
        ("  2x H200  ", 2, "h200"),
        ("8xH100-80GB", 8, "h100-80gb"),
        ("8xH100_80GB", 8, "h100-80gb"),
        ("2x RTX PRO 6000", 2, "rtx-pro-6000"),
        ("2xrtx-pro-6000", 2, "rtx-pro-6000"),
        ("4xNVIDIA A100-SXM4-80GB", 4, "a100-80gb"),
        ("1xNVIDIA GeForce RTX 4090", 1, "rtx-4090"),
        ("4090", 1, "rtx-4090"),
        ("2x4090", 2, "rtx-4090"),
        ("5090", 1, "rtx-5090"),
        ("dgx spark", 1, "gb10"),
        ("72xGB200", 72, "gb200"),
        ("1024xB200", 1024, "b200"),
    ],
)
def test_people_write_nodes_in_many_ways(catalog: Catalog, text: str, count: int, spec: str) -> None:
    """A number of its own is a product (4090), before an x it is a count."""
    node = parse_gpus(text, catalog.gpus)
    assert node.gpu_count == count
    assert {gpu.spec for gpu in node.gpus} == {spec}
    assert [gpu.index for gpu in node.gpus] == list(range(count))
    assert node.origin == "described"
    assert node.host is None
    assert node.is_uniform


def test_every_name_of_every_gpu_leads_to_it(catalog: Catalog) -> None:
    """Ids, NVML names and aliases, in capitals too; no two GPUs share one."""
    owner: dict[str, str] = {}
    for spec in catalog.gpus.values():
        for name in (spec.id, spec.name, *spec.aliases):
            assert find_gpu_spec(name, catalog.gpus.values()) is spec
            assert find_gpu_spec(name.upper(), catalog.gpus.values()) is spec
            assert owner.setdefault(normalise_gpu_name(name), spec.id) == spec.id


def test_every_gpu_is_recognised_by_what_nvml_says_of_it_and_by_no_others_pattern(catalog: Catalog) -> None:
    """One match for each product's own report, in whatever order the catalog lists them."""
    for spec in catalog.gpus.values():
        report = (spec.name, spec.memory_bytes, spec.compute_capability)
        matches = [
            other.id for other in catalog.gpus.values() if match_gpu_spec(*report, [other]) is not None
        ]
        assert matches == [spec.id]


@pytest.mark.parametrize(
    ("name", "gib", "capability", "spec"),
    [
        ("NVIDIA H200", 140.4, 9.0, "h200"),
        ("NVIDIA H200", 135.0, 9.0, "h200"),  # 3.9 % less: ECC or a carve-out
        ("NVIDIA H200", 120.0, 9.0, None),  # a MIG slice or another product
        ("NVIDIA H200", 140.4, 8.9, None),
        ("NVIDIA H200 NVL", 140.4, 9.0, None),  # less power and bandwidth: not the same product
        ("NVIDIA GH200 480GB", 95.6, 9.0, "gh200"),
        ("NVIDIA GH200 144G HBM3e", 140.4, 9.0, None),
        ("NVIDIA GeForce RTX 4090 D", 24.0, 8.9, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 24.0, 8.9, None),
        ("NVIDIA GeForce RTX 3090 Ti", 24.0, 8.6, None),
        ("NVIDIA GeForce RTX 5090", 31.84, 12.0, "rtx-5090"),
        ("nvidia l40s", 44.99, 8.9, "l40s"),
        ("NVIDIA T4", 15.0, 7.5, None),
    ],
)
def test_nearly_the_same_name_is_another_product(
    catalog: Catalog, name: str, gib: float, capability: float, spec: str | None
) -> None:
    """A wrong match would plan with another GPU's bandwidth."""
    found = match_gpu_spec(name, round(gib * 2**30), capability, catalog.gpus.values())
    assert (found.id if found else None) == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected COUNTxNAME"),
        ("   ", "expected COUNTxNAME"),
        ("0xH200", "count 0 is not within 1 to 1024"),
        ("1025xH200", "count 1025 is not within 1 to 1024"),
        ("999999999xH200", "count 999999999 is not within"),
        ("-2xH200", "no GPU called '-2xH200'"),
        ("2.5xH200", "no GPU called '2.5xH200'"),
        ("2x", "no GPU called '2x'"),
        ("x", "no GPU called 'x'"),
        ("2xH300", "no GPU called 'H300'"),
        ("2x2xH200", "no GPU called '2xH200'"),
        ("2xH200,2xH100", "no GPU called"),
        ("2\nxH200\n1", "expected COUNTxNAME"),
    ],
)
def test_what_is_no_node_is_refused_by_flag_and_word(catalog: Catalog, text: str, said: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse_gpus(text, catalog.gpus)
    assert caught.value.message.startswith("--gpus")
    assert said in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("H20", "h200"), ("H100 SMX", "h100-80gb"), ("hopper h200", "h200"), ("rtxpro", "rtx-pro-6000"),
        ("MI300", None), ("mi30x", "mi300x"), ("rtx 409", "rtx-4090"), ("l40", "l40s"),
    ],
)  # fmt: skip
def test_a_near_name_is_offered(catalog: Catalog, typed: str, meant: str | None) -> None:
    """At most five, without repetition; an alias needs no offer."""
    if meant is None:
        assert find_gpu_spec(typed, catalog.gpus.values()).id == "mi300x"
        return
    with pytest.raises(BadInputError) as caught:
        find_gpu_spec(typed, catalog.gpus.values())
    offered = caught.value.remedy.removeprefix("Did you mean ").partition("?")[0].split(", ")
    assert meant in offered
    assert len(offered) == len(set(offered)) <= 5


def test_a_name_near_to_none_gets_them_all(catalog: Catalog) -> None:
    with pytest.raises(BadInputError) as caught:
        find_gpu_spec("@@@", catalog.gpus.values())
    assert all(spec in caught.value.remedy for spec in catalog.gpus)


def test_an_empty_catalog_knows_nothing_and_says_so() -> None:
    with pytest.raises(BadInputError, match="no GPU called 'H200'"):
        parse_gpus("2xH200", {})


@pytest.mark.parametrize(
    ("text", "asked", "link"),
    [
        ("1xH200", None, "none"), ("1xH200", "nvlink", "none"), ("2xH200", None, "nvlink"),
        ("2xH200", "pcie", "pcie"), ("2xL40S", None, "pcie"), ("2xL40S", "nvlink", "nvlink"),
    ],
)  # fmt: skip
def test_the_link_is_the_products_unless_said(
    catalog: Catalog, text: str, asked: str | None, link: str
) -> None:
    """One GPU has no link to anything."""
    assert parse_gpus(text, catalog.gpus, interconnect=asked).interconnect == link  # type: ignore[arg-type]


@given(st.text(max_size=20))
def test_normalised_names_are_letters_and_digits_and_stay(text: str) -> None:
    once = normalise_gpu_name(text)
    assert normalise_gpu_name(once) == once
    assert all(c.isascii() and (c.isdigit() or c.islower()) for c in once)


@given(st.integers(1, 1024), st.sampled_from(["H200", "b200", "RTX PRO 6000"]), st.sampled_from("xX*"))
def test_counts_are_counts(count: int, name: str, sign: str) -> None:
    node = parse_gpus(f"{count}{sign}{name}", load_catalog().gpus)
    assert node.gpu_count == count
    assert node.description.startswith(f"{count}x ")
    assert all(a.memory_total_bytes == b.memory_total_bytes for a, b in pairwise(node.gpus))


def gpu(**changed: object) -> Gpu:
    plain: dict[str, object] = {
        "index": 0, "name": "NVIDIA H200", "spec": "h200",
        "memory_total_bytes": 150754820096, "compute_capability": 9.0,
    }  # fmt: skip
    return Gpu(**(plain | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "uniform"),
    [
        ({}, True),
        ({"index": 1, "uuid": "GPU-2", "memory_used_bytes": 5}, True),
        ({"memory_total_bytes": 150754820095}, False),
        ({"spec": None}, False),
        ({"name": "NVIDIA H200 NVL"}, False),
    ],
)
def test_a_node_is_uniform_by_product_and_memory(other: dict[str, object], uniform: bool) -> None:
    """Who uses them and where they sit does not count."""
    node = Node(gpus=(gpu(), gpu(**other)), interconnect="nvlink", origin="nvml", description="")
    assert node.is_uniform is uniform
    assert node.gpu_count == 2


def test_no_gpu_is_uniform() -> None:
    node = Node(gpus=(), interconnect="none", origin="nvml", description="")
    assert node.is_uniform
    assert node.gpu_count == 0


def test_free_is_total_less_used() -> None:
    assert gpu(memory_used_bytes=10_000_000_000).memory_free_bytes == 140_754_820_096


def test_a_node_survives_its_json(catalog: Catalog) -> None:
    node = parse_gpus("2xH200", catalog.gpus)
    assert node_from_json(msgspec.json.encode(node)) == node


def described(**changed: object) -> bytes:
    plain: dict[str, object] = {
        "schema": "qwenhost.node/1", "gpus": [], "interconnect": "pcie", "origin": "nvml", "description": "",
    }  # fmt: skip
    return msgspec.json.encode(plain | changed)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a node"),
        (b"{", "not a node"),
        (b"\xff", "not a node"),
        (b"[" * 100_000, "not a node"),
        (described(schema="qwenhost.node/2"), "schema is 'qwenhost.node/2', expected 'qwenhost.node/1'"),
        (b'{"schema": "qwenhost.node/1", "gpus": []}', "missing required field"),
        (described(gpus=[{}]), r"$.gpus[0]"),
        (described(interconnect="wire"), r"$.interconnect"),
        (described(x=1), "`x`"),
    ],
)
def test_what_is_no_node_description_names_its_key(data: bytes, said: str) -> None:
    with pytest.raises(BadInputError) as caught:
        node_from_json(data)
    assert caught.value.message.startswith("node: ")
    assert said in caught.value.message
    assert "qwenhost inspect --json" in caught.value.remedy


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"none\.json: No such file"):
        load_node(tmp_path / "none.json")


def saved(folder: Path, node: Node) -> str:
    path = folder / "node.json"
    path.write_bytes(msgspec.json.encode(node))
    return str(path)


def test_a_node_inspected_elsewhere_is_planned_for_like_one_described(
    tmp_path: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same GPUs and link give the same choice and the same bytes."""
    node = parse_gpus("2xH200", catalog.gpus)
    chosen = []
    for gpus in ("2xH200", saved(tmp_path, node)):
        assert run(["plan", "--gpus", gpus, "--json"]) == 0
        chosen.append(json.loads(capsys.readouterr().out)["chosen"])
    assert chosen[0] == chosen[1]


def test_its_gpus_are_looked_up_in_the_catalog_of_here(
    tmp_path: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    """A product that the other machine's catalog did not know, or knew by another id."""
    node = parse_gpus("1xH200", catalog.gpus)
    stranger = msgspec.structs.replace(node.gpus[0], spec="h200-of-another-catalog")
    assert run(["inspect", "--json", "--gpus", saved(tmp_path, replaced(node, gpus=(stranger,)))]) == 0
    assert json.loads(capsys.readouterr().out)["gpus"][0]["spec"] == "h200"
    unknown = msgspec.structs.replace(node.gpus[0], name="NVIDIA H900")
    assert run(["plan", "--gpus", saved(tmp_path, replaced(node, gpus=(unknown,)))]) == 2
    assert "NVIDIA H900" in capsys.readouterr().err


def test_a_node_without_gpus_says_why_there_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = Node(gpus=(), interconnect="none", origin="nvml", description="", notes=("no driver.",))
    assert run(["plan", "--gpus", saved(tmp_path, empty)]) == 2
    assert "a node without GPUs (no driver)" in capsys.readouterr().err


def test_its_links_are_its_own(tmp_path: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    """--interconnect would contradict what the driver said there."""
    file = saved(tmp_path, parse_gpus("2xH200", catalog.gpus))
    assert run(["plan", "--gpus", file, "--interconnect", "pcie"]) == 2
    assert "--interconnect" in capsys.readouterr().err


def replaced(node: Node, **changed: object) -> Node:
    return msgspec.structs.replace(node, **changed)
