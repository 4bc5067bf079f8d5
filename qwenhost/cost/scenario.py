"""What a monthly bill needs, on both sides, at one point in the space of what is uncertain."""

from __future__ import annotations

import math

from qwenhost.facts import Value
from qwenhost.units import DAYS_PER_MONTH, HOURS_PER_MONTH

SECONDS_PER_DAY = 86_400.0


class Scenario(Value, frozen=True, kw_only=True):
    """One point in the space of what is uncertain; everything a monthly bill needs."""

    api_usd_per_request: float
    usd_per_node_hour: float
    storage_usd_per_node_month: float = 0.0
    staff_usd_per_month: float = 0.0
    start_hours_per_node_month: float = 0.0
    """Bought beside the 730 hours, in which engines start and nobody is served."""
    egress_usd_per_request: float = 0.0
    requests_per_s_per_node: float
    """Capacity of one node at the service level."""
    mean_over_peak: float = 1.0
    spare_nodes: int = 0

    @property
    def usd_per_node_month(self) -> float:
        """Rent of a node that never sleeps, the hours its starts take, and its storage."""
        hours = HOURS_PER_MONTH + self.start_hours_per_node_month
        return self.usd_per_node_hour * hours + self.storage_usd_per_node_month

    @property
    def requests_per_day_per_node(self) -> float:
        """Mean daily volume that peaks at one node's capacity."""
        return self.requests_per_s_per_node * SECONDS_PER_DAY * self.mean_over_peak

    def serving_nodes(self, requests_per_day: float) -> int:
        """Nodes that carry the peak; one at least, whole ones only."""
        return max(1, math.ceil(requests_per_day / self.requests_per_day_per_node - 1e-9))

    def self_host_usd_per_month(self, requests_per_day: float) -> float:
        """Serving and spare nodes, the staff, and what leaves the network."""
        nodes = self.serving_nodes(requests_per_day) + self.spare_nodes
        sent = self.egress_usd_per_request * requests_per_day * DAYS_PER_MONTH
        return nodes * self.usd_per_node_month + self.staff_usd_per_month + sent

    def api_usd_per_month(self, requests_per_day: float) -> float:
        """The API's bill."""
        return self.api_usd_per_request * requests_per_day * DAYS_PER_MONTH
