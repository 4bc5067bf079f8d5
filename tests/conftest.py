"""The same surroundings for every test, whatever the user's own shell has set."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# A drawn example may take long on a busy machine; how long is no property of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

OF_THE_USER = (
    "QWENHOST_PROFILES", "QWENHOST_API_KEY", "QWENHOST_DEBUG", "QWENHOST_VLLM_BIN", "HF_TOKEN",
    "CUDA_VISIBLE_DEVICES", "NO_COLOR", "FORCE_COLOR", "PYTHONPATH",
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _neutral_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No key, profile or colour setting of the user's; state and settings in a folder of the run's."""
    before = dict(os.environ)
    for name in OF_THE_USER:
        os.environ.pop(name, None)
    home = tmp_path_factory.mktemp("user")
    os.environ |= {
        "COLUMNS": "120",
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CONFIG_HOME": str(home / "config"),
    }
    yield
    os.environ.clear()
    os.environ.update(before)
