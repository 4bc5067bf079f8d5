"""What is looked at before anything expensive starts; ``qwenhost doctor`` prints the same list.

Each check is a function of facts handed to it and returns a :class:`Check`.
"""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

from qwenhost.discovery import discover_host
from qwenhost.errors import UnavailableError
from qwenhost.launcher.checks_engine import (
    check_capability,
    check_driver,
    check_gpus,
    check_vllm,
    find_node,
    torch_cuda_version,
)
from qwenhost.launcher.checks_host import check_open_files, check_ports, check_ram, check_shm
from qwenhost.launcher.checks_weights import check_hub, check_weights_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwenhost.facts import GpuSpec
    from qwenhost.launcher.checks import Check, Subject
    from qwenhost.plan import Candidate


def preflight(
    subject: Subject,
    candidate: Candidate | None,
    specs: Mapping[str, GpuSpec],
    *,
    environ: Mapping[str, str] | None = None,
) -> list[Check]:
    """Every check that applies, in the order of a start."""
    environ = os.environ if environ is None else environ
    checks = check_ports(subject)
    if subject.engine == "vllm":
        checks += check_vllm(subject)
    if subject.engine == "vllm" and subject.target == "gpu":
        node, found = find_node(specs)
        checks.append(found)
        if node is not None:
            checks.append(check_driver(node, torch_cuda_version(subject.vllm_bin)))
            checks.append(check_capability(node, subject.min_compute_capability))
            if candidate is not None:
                checks.append(check_gpus(node, candidate))
    host = discover_host(environ=environ)
    processes = candidate.parallelism.world_size if candidate and subject.target == "gpu" else 1
    if subject.engine == "vllm":
        checks += [check_ram(host, processes), check_shm(host, processes)]
        checks.append(check_weights_source(subject, host, environ))
        checks += check_hub(subject, host, environ)
    checks.append(check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return checks


def require_passed(checks: Sequence[Check]) -> None:
    """Go on only if no check failed.

    Raises:
        UnavailableError: names the first failed check, its remedy, and the others by name.
    """
    failed = [check for check in checks if check.status == "fail"]
    if not failed:
        return
    first, rest = failed[0], failed[1:]
    more = f" (failed too: {', '.join(c.name for c in rest)})" if rest else ""
    raise UnavailableError(
        f"{first.name}: {first.detail}{more}",
        remedy=f"{first.remedy} The whole list: qwenhost doctor. To start anyway: qwenhost serve --force",
    )
