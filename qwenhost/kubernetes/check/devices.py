"""Rules about device requests (Dynamic Resource Allocation) and their expressions."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.kubernetes.check.bundle import Bundle
    from qwenhost.kubernetes.manifests import Finding, Place

_PAIRS: Final = {")": "(", "]": "[", "}": "{"}
# (what is wrong, pattern of an expression without its strings)
_SLIPS: Final = (
    (
        "CEL compares with == and joins with && and ||",
        r"(?<![=!<>])=(?!=)|(^|[^&])&([^&]|$)|(^|[^|])\|([^|]|$)",
    ),
    ("an operator has nothing on its right", r"(&&|\|\||[-+*/<>=!])\s*($|\))"),
)


def device_rules(bundle: Bundle) -> Iterator[Finding]:
    """Every rule of this file on every claim."""
    for template in bundle.of_kind("ResourceClaimTemplate"):
        yield from _claim(template.root.at("spec", "spec", "devices"))
    for claim in bundle.of_kind("ResourceClaim"):
        yield from _claim(claim.root.at("spec", "devices"))


def _claim(devices: Place) -> Iterator[Finding]:
    names = {request.at("name").text for request in devices.each("requests")}
    for request in devices.each("requests"):
        choices = list(request.each("firstAvailable"))
        if request.at("exactly").present == bool(choices):
            yield request.error("device_request", "a request needs either exactly or firstAvailable")
        twice = [n for n, count in Counter(c.at("name").text for c in choices).items() if count > 1]
        if twice:
            yield request.error("device_request", f"two alternatives are called {twice[0]!r}")
        names |= {f"{request.at('name').text}/{choice.at('name').text}" for choice in choices}
        for one in (*choices, request.at("exactly")):
            if one.present:
                yield from _wanted(one)
    for constraint in devices.each("constraints"):
        yield from _constraint(constraint, names)


def _wanted(one: Place) -> Iterator[Finding]:
    if not one.at("deviceClassName").text:
        yield one.error("device_request", "a request needs a deviceClassName")
    for selector in one.each("selectors"):
        expression = selector.at("cel", "expression")
        problem = cel_problem(expression.text)
        if problem:
            yield expression.error("device_expression", f"{expression.value!r}: {problem}")


def _constraint(constraint: Place, names: set[str]) -> Iterator[Finding]:
    for name in constraint.each("requests"):
        if name.text not in names:
            yield name.error("device_request", f"no request is called {name.value!r}")
    for attribute in ("matchAttribute", "distinctAttribute"):
        given = constraint.at(attribute)
        if given.present and "/" not in given.text:
            yield given.error(
                "device_request", f"{given.value!r} lacks its domain", "Write gpu.nvidia.com/productName."
            )


def cel_problem(text: str) -> str | None:
    """What is plainly wrong with an expression about a device; only a server knows the whole of CEL."""
    bare = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "s", text)
    if "'" in bare or '"' in bare:
        return "a quote is not closed"
    problem = _unbalanced(bare)
    if problem:
        return problem
    if not re.search(r"\bdevice\.(attributes|capacity|driver|allowMultipleAllocations)\b", bare):
        return "it says nothing about device.attributes, device.capacity or device.driver"
    return next((wrong for wrong, pattern in _SLIPS if re.search(pattern, bare)), None)


def _unbalanced(bare: str) -> str | None:
    opened: list[str] = []
    for letter in bare:
        if letter in _PAIRS.values():
            opened.append(letter)
        elif letter in _PAIRS and (not opened or opened.pop() != _PAIRS[letter]):
            return f"{letter!r} closes nothing"
    return f"{opened[-1]!r} is not closed" if opened else None
