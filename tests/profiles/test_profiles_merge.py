"""Folders of the user's are merged over the built-in ones, and the cache never shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from qwenhost.profiles import ProfileError, load_catalog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.facts import Catalog

SOURCE = "source: {where: a contract of ours, as_of: 2026-11-01}"


def price(usd: float, provider: str = "hyperstack") -> str:
    row = f"gpu: h200, provider: {provider}, tier: on_demand, usd_per_gpu_hour: {usd}, {SOURCE}"
    return f"gpu_prices:\n- {{{row}}}\n"


def h200_prices(catalog: Catalog) -> dict[str, float]:
    return {
        row.provider: row.usd_per_gpu_hour
        for row in catalog.gpu_prices
        if row.gpu == "h200" and row.tier == "on_demand"
    }


def test_a_row_of_the_same_name_wins(builtin: Catalog, write: Callable[..., Path]) -> None:
    """A price for the same GPU, provider and tier takes the built-in one's place; others stay."""
    assert h200_prices(builtin)["hyperstack"] == 3.99
    mine = h200_prices(load_catalog([write(price(2.5))]))
    assert mine == h200_prices(builtin) | {"hyperstack": 2.5}


def test_a_new_row_is_added(builtin: Catalog, write: Callable[..., Path]) -> None:
    """Another provider's price is one more."""
    mine = load_catalog([write(price(2.5, "us"))])
    assert len(mine.gpu_prices) == len(builtin.gpu_prices) + 1


def test_the_later_folder_wins(write: Callable[..., Path]) -> None:
    """Of two folders with the same row the last one counts."""
    first, second = write(price(2.5), folder="first"), write(price(2.25), folder="second")
    assert h200_prices(load_catalog([first, second]))["hyperstack"] == 2.25
    assert h200_prices(load_catalog([second, first]))["hyperstack"] == 2.5


def test_a_row_may_point_at_a_row_of_another_folder(write: Callable[..., Path]) -> None:
    """A checkpoint of yours may use a built-in format; one that nobody defines is refused."""
    text = f"""checkpoints:
- {{id: mine, repo_id: me/mine, architecture: Qwen3.5-122B-A10B, quantization: fp8,
   formats: {{default: int8}}, mtp: false, disk_bytes: 1,
   disk_bytes_basis: assumed, min_compute_capability: 8.0,
   max_tensor_parallel_size: 8, {SOURCE}}}
"""
    folder = write(text)
    with pytest.raises(ProfileError, match="no 'int8' among formats"):
        load_catalog([folder])
    formats = write(f"formats:\n- {{id: int8, bits: 8, {SOURCE}}}\n", folder="formats")
    assert load_catalog([folder, formats]).checkpoints["mine"].format_of("vision") == "int8"


def test_the_digest_follows_the_content(builtin: Catalog, write: Callable[..., Path]) -> None:
    """Same files, same digest, wherever they lie; other content, another digest."""
    one = load_catalog([write(price(2.5), folder="one")])
    same = load_catalog([write(price(2.5), folder="two")])
    other = load_catalog([write(price(2.6), folder="three")])
    assert one.digest == same.digest
    assert len({builtin.digest, one.digest, other.digest}) == 3


def test_the_newest_fact(builtin: Catalog, write: Callable[..., Path]) -> None:
    """The catalog knows the date of its newest fact."""
    newer = load_catalog([write(price(2.5).replace("2026-11-01", "2031-01-02"))])
    assert builtin.newest_fact.isoformat() < "2031-01-02" == newer.newest_fact.isoformat()


def test_the_cache_gives_the_same_catalog(builtin: Catalog, own_cache: Path) -> None:
    """Parsed, then from the cache: equal; the cache is the user's alone."""
    assert load_catalog() == builtin
    (kept,) = own_cache.glob("*.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_bytes())["digest"] == builtin.digest
    assert load_catalog() == builtin


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"digest": "x"}'])
def test_a_broken_cache_is_ignored(builtin: Catalog, own_cache: Path, content: bytes) -> None:
    """Whatever lies in the cache, the profiles decide."""
    load_catalog()
    (kept,) = own_cache.glob("*.json")
    kept.write_bytes(content)
    assert load_catalog() == builtin


def test_without_a_place_for_the_cache(
    builtin: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache folder that cannot be made costs time, nothing else."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load_catalog() == builtin


def test_the_cache_stays_small(own_cache: Path, write: Callable[..., Path]) -> None:
    """Old catalogs are dropped."""
    for i in range(12):
        load_catalog([write(price(2 + i / 10), folder=f"f{i}")])
    assert len(list(own_cache.glob("*.json"))) == 8


def test_exponents_as_json_writes_them(write: Callable[..., Path]) -> None:
    """``1e2`` is a number, as in JSON, not text as in YAML 1.1."""
    assert h200_prices(load_catalog([write(price(0).replace(": 0,", ": 1e2,"))]))["hyperstack"] == 100.0


def test_hidden_files_are_left_out(builtin: Catalog, write: Callable[..., Path]) -> None:
    """Editors' locks and the hidden folder of a mounted ConfigMap are no profiles."""
    write("not: [yaml", ".#mine.yaml")
    folder = write(price(2.5), "..2026_11_01/mine.yaml")
    assert load_catalog([folder.parent]).gpu_prices == builtin.gpu_prices
