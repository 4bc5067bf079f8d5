"""Damage to a document that knows its structure: keys, types, units, versions, nesting, bytes."""

from __future__ import annotations

import copy
import json
import random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fuzz_kit import DEEP, ODD_TEXTS

if TYPE_CHECKING:
    from collections.abc import Callable

EDGES: Final = (
    0, -1, 1, 2, 0.0, -0.0, 0.5, -0.5, 1e-320, 1e-9, 1e9, 1e15, -1e15, 1e300, -1e300, 1.7e308, 2**31,
    2**53 + 1,
    2**63 - 1, 2**63, 2**64, -(2**63), 10**30, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
VERSIONS: Final = ("/0", "/2", "/1.0", "/", "", "/01", "/1 ", "/99999999999999999999")


class Damaged(NamedTuple):
    """What came of a document, and how."""

    data: bytes
    how: tuple[str, ...]

    def __repr__(self) -> str:
        return "; ".join(self.how)


def damage(document: Any, seed: int, encode: Callable[[Any], bytes] | None = None) -> Damaged:
    """One to three changes, the same ones for the same seed; one in eight is of the bytes."""
    chance = random.Random(seed)  # noqa: S311 - chance, not secrets
    whole = {"": copy.deepcopy(document)}
    how = [_change(whole, chance) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
    encoded = (encode or _json)(whole.get(""))
    if chance.random() < 1 / 8:
        encoded, said = _bytes(encoded, chance)
        how.append(said)
    return Damaged(encoded, tuple(how))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def lines(rows: Any) -> bytes:
    """A JSON document a line."""
    return b"".join(_json(row) + b"\n" for row in rows) if isinstance(rows, list) else _json(rows)


def _change(whole: dict[str, Any], chance: random.Random) -> str:
    """Go down by chance, so that what stands high is hit as often as what stands deep."""
    parent: Any = whole
    path: list[Any] = [""]
    while True:
        here = parent[path[-1]]
        if not isinstance(here, dict | list) or not here or (len(path) > 1 and chance.random() < 0.1):
            break
        parent = here
        path.append(chance.choice(list(here)) if isinstance(here, dict) else chance.randrange(len(here)))
    name = ".".join(map(str, path[1:])) or "the whole"
    kinds = [_replaced, _replaced, _replaced, _nudged, _nudged, _retyped, _removed, _emptied, _added, _nested]
    if path[-1] == "schema":
        kinds = [_version]
    return f"{name} {chance.choice(kinds)(parent, path[-1], chance)}"


def _replaced(parent: Any, key: Any, chance: random.Random) -> str:
    """By an edge of its own type, mostly."""
    old = parent[key]
    if isinstance(old, bool) or old is None:
        parent[key] = chance.choice((True, False, None, 0, 1, "yes"))
    elif isinstance(old, int | float):
        edges = [one for one in EDGES if isinstance(one, type(old))] if chance.random() < 0.7 else EDGES
        parent[key] = chance.choice(edges)
    elif isinstance(old, str):
        parent[key] = chance.choice(
            (*ODD_TEXTS, old.upper(), old + " ", old * 200, "[bold]x[/bold]", "\ud800")
        )
    else:
        parent[key] = chance.choice((None, 0, "x", [], {}, [None], {"x": 1}, [[]]))
    return f"-> {str(parent[key])[:60]!r}"


def _nudged(parent: Any, key: Any, chance: random.Random) -> str:
    """Another unit, another sign, one more, one less."""
    old = parent[key]
    if isinstance(old, bool) or not isinstance(old, int | float):
        return _replaced(parent, key, chance)
    parent[key] = chance.choice((old * 1000, old * 10**9, -old, old + 1, old - 1, old * 2**30, 0, old / 1000))
    return f"-> {parent[key]!r}"


def _retyped(parent: Any, key: Any, chance: random.Random) -> str:
    old = parent[key]
    options: list[Any] = [[old], {"value": old}, str(old), None, True]
    if isinstance(old, int | float):
        options += [float(old), f"{old} GiB"]
    parent[key] = chance.choice(options)
    return f"retyped {str(parent[key])[:60]!r}"


def _removed(parent: Any, key: Any, chance: random.Random) -> str:
    if key == "":
        return _replaced(parent, key, chance)
    old = parent.pop(key)
    if isinstance(parent, dict) and chance.random() < 0.4:
        new = chance.choice((str(key).upper(), f"{key}_", f" {key}", "", "é", "__class__"))
        parent[new] = old
        return f"renamed {new!r}"
    return "removed"


def _emptied(parent: Any, key: Any, chance: random.Random) -> str:
    old = parent[key]
    if isinstance(old, list):
        parent[key] = chance.choice(([], old * 2, old[::-1], old[:1]))
        return f"a list of {len(parent[key])}"
    if isinstance(old, dict):
        parent[key] = {}
        return "emptied"
    return _replaced(parent, key, chance)


def _added(parent: Any, key: Any, chance: random.Random) -> str:
    inside = parent[key] if isinstance(parent[key], dict) else parent
    if isinstance(inside, list):
        inside.append(copy.deepcopy(inside[-1]) if inside and chance.random() < 0.5 else None)
        return "one more"
    inside[chance.choice(("x", "schema", "", "\u2028"))] = chance.choice((None, 1, [], "x"))
    return "another key"


def _nested(parent: Any, key: Any, chance: random.Random) -> str:
    deep: Any = parent[key]
    for _ in range(depth := chance.choice((3, 200))):
        deep = [deep]
    parent[key] = deep
    return f"{depth} deep"


def _version(parent: Any, key: Any, chance: random.Random) -> str:
    name = str(parent[key]).partition("/")[0]
    parent[key] = chance.choice((*(name + one for one in VERSIONS), "qwenhost.else/1", None, 1, [], {}))
    return f"-> {parent[key]!r}"


def _bytes(data: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Of the file: cut, doubled, in another encoding, with a mark, with keys twice."""
    at = chance.randrange(len(data) + 1)
    made: dict[str, bytes] = {
        "truncated": data[:at], "empty": b"", "BOM": b"\xef\xbb\xbf" + data,
        "not UTF-8": data[:at] + b"\xff\xc3" + data[at:],
        "UTF-16": data.decode("utf-8", "replace").encode("utf-16"), "NUL": data[:at] + b"\0" + data[at:],
        "trailing": data + b" x", "twice": data + data, "deep": DEEP, "CRLF": data.replace(b"\n", b"\r\n"),
        "keys twice": data.replace(b'"schema":', b'"schema": 1, "schema":', 1),
        "brackets": data[:at] + DEEP + data[at:],
        "a line less": b"\n".join(data.split(b"\n")[1:]), "spaces": b" " * 1000 + data,
        "NaN": data.replace(b"1", b"NaN", 1),
        "digits": data.replace(b"1", b"1" * 5000, 1), "-": data.replace(b"1", b"-1", 3),
    }  # fmt: skip
    said = chance.choice(list(made))
    return made[said], f"bytes: {said} at {at}"
