"""Which replica a request goes to."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.simulate.fleet_config import Routing
    from qwenhost.simulate.fleet_replica import Replica
    from qwenhost.simulate.load import Arrival

# The SGLang router's rule for its cache-aware policy, with its defaults.
SHORTEST_MATCH = 0.3
IMBALANCE_REQUESTS = 64
IMBALANCE_RATIO = 1.5


class Router(Protocol):
    """A policy."""

    def choose(self, call: Arrival, ready: Sequence[Replica]) -> Replica:
        """One of the ready replicas, of which there is at least one."""

    def forget(self, replica: Replica) -> None:
        """It has gone or lost its cache."""


class RoundRobin:
    """Each in turn, as a Kubernetes Service does on average; blind to load and to kinds of replicas."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, call: Arrival, ready: Sequence[Replica]) -> Replica:  # noqa: ARG002 - the protocol's
        """The next."""
        self._turn += 1
        return ready[self._turn % len(ready)]

    def forget(self, replica: Replica) -> None:
        """Nothing is known of it."""


class LeastLoad:
    """The fewest requests in flight for what it carries; among equals the one idle longest."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, call: Arrival, ready: Sequence[Replica]) -> Replica:  # noqa: ARG002 - the protocol's
        """The least loaded."""
        self._turn += 1
        found = min(ready, key=_load)
        found.last_turn = self._turn
        return found

    def forget(self, replica: Replica) -> None:
        """Nothing is known of it."""


class SessionSticky:
    """A session stays where it began while that replica takes requests; new ones go to the least load."""

    def __init__(self) -> None:
        self._places: dict[str, Replica] = {}
        self._others = LeastLoad()

    def choose(self, call: Arrival, ready: Sequence[Replica]) -> Replica:
        """The session's, else the least loaded."""
        if call.session is None:
            return self._others.choose(call, ready)
        found = self._places.get(call.session)
        if found is None or not found.takes_requests:
            found = self._places[call.session] = self._others.choose(call, ready)
        return found

    def forget(self, replica: Replica) -> None:
        """Its sessions are assigned anew when they come back."""


class PrefixAware:
    """The longest prefix sent before, while loads are alike; else the least load.

    The router knows what it sent where, not what a replica still holds: it remembers as many blocks of each
    as fit its cache. Loads are unlike where the most and the fewest in flight differ by more than
    ``IMBALANCE_REQUESTS`` and by more than a factor of ``IMBALANCE_RATIO``.
    """

    def __init__(self) -> None:
        self._owners: dict[int, set[Replica]] = {}
        self._sent: dict[Replica, OrderedDict[int, None]] = {}
        self._others = LeastLoad()

    def choose(self, call: Arrival, ready: Sequence[Replica]) -> Replica:
        """By prefix, within the guard."""
        hashes = call.request.block_hashes
        found = self._match(hashes, ready) if hashes else None
        if found is None or self._unbalanced(ready):
            found = self._others.choose(call, ready)
        self._remember(found, hashes)
        return found

    def forget(self, replica: Replica) -> None:
        """All that was sent there."""
        for key in self._sent.pop(replica, ()):
            self._disown(key, replica)

    def _match(self, hashes: tuple[int, ...], ready: Sequence[Replica]) -> Replica | None:
        left = [replica for replica in ready if replica in self._sent]
        depth, best = 0, left
        for depth_now, key in enumerate(hashes, 1):
            owners = self._owners.get(key)
            left = [replica for replica in left if replica in owners] if owners else []
            if not left:
                break
            depth, best = depth_now, left
        return min(best, key=_load) if depth > SHORTEST_MATCH * len(hashes) else None

    @staticmethod
    def _unbalanced(ready: Sequence[Replica]) -> bool:
        loads = [replica.outstanding for replica in ready]
        most, fewest = max(loads), min(loads)
        return most - fewest > IMBALANCE_REQUESTS and most > IMBALANCE_RATIO * fewest

    def _remember(self, replica: Replica, hashes: tuple[int, ...]) -> None:
        sent = self._sent.setdefault(replica, OrderedDict())
        for key in hashes:
            sent[key] = None
            sent.move_to_end(key)
            self._owners.setdefault(key, set()).add(replica)
        while len(sent) > replica.pool.config.usable_blocks:
            self._disown(sent.popitem(last=False)[0], replica)

    def _disown(self, key: int, replica: Replica) -> None:
        owners = self._owners[key]
        owners.discard(replica)
        if not owners:
            del self._owners[key]


def router(routing: Routing) -> Router:
    """The policy of that name."""
    policies: dict[Routing, type[Router]] = {
        "round-robin": RoundRobin,
        "least-load": LeastLoad,
        "session-sticky": SessionSticky,
        "prefix-aware": PrefixAware,
    }
    return policies[routing]()


def _load(replica: Replica) -> tuple[float, int]:
    return replica.outstanding / replica.pool.weight, replica.last_turn
