"""Planning over every checkpoint and layout of an 8-GPU node: compute time, without start-up and YAML.

CPU time of this process, so that others on the machine do not count. The catalog is loaded before; each plan
starts from a fresh request. Bar: the quickest of several under 300 ms for every node: what else runs on the
machine's cores only ever adds.
"""

from __future__ import annotations

import statistics
import sys
import time

from common import write_result

from qwenhost.node import parse_gpus
from qwenhost.plan import PlanRequest
from qwenhost.planner import make_plan
from qwenhost.profiles import load_catalog

NODES = ("8xH100", "8xH200", "8xB200", "8xA100", "8xRTX PRO 6000", "8xL40S")
WORKLOADS = ("chat", "rag")
REPEATS = 9
BAR_MS = 300.0


def main() -> int:
    """Median and worst of several plans for each node and workload."""
    catalog = load_catalog([])
    rows = {}
    for gpus in NODES:
        node = parse_gpus(gpus, catalog.gpus)
        for name in WORKLOADS:
            workload = catalog.workloads[name]
            request = PlanRequest(node=node, workload=workload, slo=workload.slo)
            times, count = [], 0
            for _ in range(REPEATS):
                started = time.process_time()
                plan = make_plan(request, catalog)
                times.append((time.process_time() - started) * 1000)
                count = 1 + len(plan.alternatives) + len(plan.rejections)
            best, median = min(times), statistics.median(times)
            rows[f"{gpus} {name}"] = {
                "best_ms": best,
                "median_ms": median,
                "worst_ms": max(times),
                "rows": count,
            }
            print(f"{gpus:<16} {name:<5} best {best:6.1f} ms, median {median:6.1f}, worst {max(times):6.1f}")
    slowest = max(row["best_ms"] for row in rows.values())
    print(f"slowest node {slowest:.1f} ms; bar {BAR_MS:.0f} ms {'met' if slowest < BAR_MS else 'MISSED'}")
    path = write_result("planning_time", {"plans": rows, "slowest_best_ms": slowest, "bar_ms": BAR_MS})
    print(f"kept {path.name}")
    return int(slowest >= BAR_MS)


if __name__ == "__main__":
    sys.exit(main())
