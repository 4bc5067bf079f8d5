"""The hub's failures, each told apart and each with its next step."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import errors

from qwenhost.errors import BadInputError, QwenhostError, UnavailableError
from qwenhost.hub import is_path, translated


def http(kind: type[errors.HfHubHTTPError], status: int | None) -> errors.HfHubHTTPError:
    """The client's exception as it raises it, with an answer of that status or none."""
    error = kind.__new__(kind)
    Exception.__init__(error, "as the hub says")
    answer: Any = None if status is None else SimpleNamespace(status_code=status)
    error.response = answer
    return error


def raised(error: BaseException) -> BaseException:
    """What comes out of ``translated`` when ``error`` is raised in it."""
    try:
        with translated("Qwen/X"):
            raise error  # noqa: TRY301 - as the client does
    except BaseException as found:  # noqa: BLE001 - that is the question
        return found
    return AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("status", "kind", "said", "remedy"),
    [
        (401, UnavailableError, "the hub wants a token", "HF_TOKEN"),
        (403, UnavailableError, "the hub refuses access", "Accept the model's terms"),
        (404, BadInputError, "no such repository, revision or file", "Check the name"),
        (429, UnavailableError, "the hub limits the rate", "Wait some minutes"),
        (500, UnavailableError, "the hub answered 500", "what was fetched is kept"),
        (503, UnavailableError, "the hub answered 503", "what was fetched is kept"),
        (None, UnavailableError, "the hub answered 0", "what was fetched is kept"),
    ],
)
def test_each_status_has_its_sentence(
    status: int | None, kind: type[QwenhostError], said: str, remedy: str
) -> None:
    found = raised(http(errors.HfHubHTTPError, status))
    assert type(found) is kind
    assert found.message == f"Qwen/X: {said}"
    assert remedy in found.remedy
    assert isinstance(found.__cause__, errors.HfHubHTTPError)


def test_a_gated_model_is_refused_access_whatever_the_status() -> None:
    """The hub answers 401 or 403 by whether a token came along: the remedy is the same."""
    for status in (401, 403):
        found = raised(http(errors.GatedRepoError, status))
        assert isinstance(found, UnavailableError)
        assert found.message == "Qwen/X: the hub refuses access"
        assert "Accept the model's terms" in found.remedy


@pytest.mark.parametrize("kind", [errors.RepositoryNotFoundError, errors.RevisionNotFoundError])
def test_what_is_not_there_is_the_users_mistake(kind: type[errors.HfHubHTTPError]) -> None:
    found = raised(http(kind, 404))
    assert isinstance(found, BadInputError)
    assert found.exit_code == 2


@pytest.mark.parametrize(
    ("error", "kind", "said", "remedy"),
    [
        (errors.HFValidationError("bad"), BadInputError, "not a repository name", "OWNER/NAME"),
        (errors.LocalEntryNotFoundError("x"), UnavailableError, "not in the cache", "HF_HUB_OFFLINE"),
        (errors.OfflineModeIsEnabled("x"), UnavailableError, "not in the cache", "HF_HUB_OFFLINE"),
        (OSError(errno.ENOSPC, "No space left"), UnavailableError, "the disk is full", "HF_HOME"),
        (ConnectionRefusedError(111, "refused"), UnavailableError, "not reached: [Errno 111]", "HF_ENDPOINT"),
        (socket.gaierror(-3, "no name"), UnavailableError, "not reached: [Errno -3] no name", "HF_ENDPOINT"),
        (TimeoutError(), UnavailableError, "not reached: TimeoutError", "start again"),
    ],
)
def test_what_is_no_answer_is_told_apart(
    error: BaseException, kind: type[QwenhostError], said: str, remedy: str
) -> None:
    """A wrong name, a cache without the file, a full disk, no network: four remedies."""
    found = raised(error)
    assert type(found) is kind
    assert found.message.startswith("Qwen/X: ")
    assert said in found.message
    assert remedy in found.remedy


@pytest.mark.parametrize("library", ["httpx", "httpcore", "requests", "urllib3"])
def test_the_clients_http_library_may_change(library: str) -> None:
    """Its exceptions are known by where they come from, not by their class."""
    foreign = type("ReadError", (Exception,), {"__module__": f"{library}.deep.inside"})
    found = raised(foreign(""))
    assert isinstance(found, UnavailableError)
    assert found.message == "Qwen/X: the hub was not reached: ReadError"
    near = type("ReadError", (Exception,), {"__module__": f"{library}er"})("x")
    assert raised(near) is near


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), KeyError("k"), KeyboardInterrupt(), SystemExit(3), MemoryError()]
)
def test_bugs_and_interruptions_pass(error: BaseException) -> None:
    """They are not the hub's."""
    assert raised(error) is error


def test_our_own_errors_pass_as_they_are() -> None:
    ours = BadInputError("named", remedy="do this")
    assert raised(ours) is ours
    assert ours.__cause__ is None


def test_nothing_happens_where_nothing_is_raised() -> None:
    with translated("Qwen/X"):
        value = 3
    assert value == 3


@pytest.mark.parametrize(
    ("ref", "path"),
    [
        ("Qwen/Qwen3.5-122B-A10B", False),
        ("./model", True),
        ("../model", True),
        ("/models/qwen", True),
        ("~/models", True),
        ("model", True),  # a repository has an owner
        ("a/b/c", True),
        ("", True),
        (".", True),
    ],
)
def test_a_repository_is_one_owner_and_one_name(ref: str, path: bool) -> None:
    assert is_path(ref) is path


def test_a_folder_that_is_there_wins_over_a_repository_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As huggingface_hub's own clients take it."""
    monkeypatch.chdir(tmp_path)
    assert not is_path("Qwen/Tiny")
    os.makedirs("Qwen/Tiny")  # noqa: PTH103
    assert is_path("Qwen/Tiny")
    Path("Qwen/File").touch()
    assert not is_path("Qwen/File")
