"""The registry of metrics that dashboards and alerts are checked against is vLLM's own."""

from __future__ import annotations

import pytest

from e2e import vllm_metrics, vllm_sources

pytestmark = pytest.mark.engine


def test_the_registry_is_that_of_the_sources() -> None:
    """Every name, kind and label as the pinned release has them."""
    try:
        sources = vllm_sources.build()
    except vllm_sources.SourcesError as error:
        pytest.skip(str(error))
    assert vllm_metrics.registry(sources) == vllm_metrics.REGISTRY.read_text()
