"""A command line in this process, held: it may start, end and call nobody, and what it leaves is looked at.

Every run is checked for what no input may bring about: an exception, an exit code that is not documented, a
failure without a word, a number that is none, JSON that breaks its own schema, a temporary file left behind.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from unittest import mock

import jsonschema_rs
from fuzz_kit import DOCUMENTED

from qwenhost.cli import main as command_line
from qwenhost.cli.main import run

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME: Final = Path(tempfile.mkdtemp(prefix="qwenhost-fuzz-run-"))
"""Where commands run and the documents lie."""
CPU_S: Final = 30
"""Of one command line; none of those drawn should need a tenth of it."""
WAIT_S: Final = 60
BEFORE: Final = b"as it was before\n"
NON_FINITE: Final = re.compile(r"(?<![\w.=-])[-+]?(?:nan|inf|infinity)(?![\w-])", re.IGNORECASE)
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", "::"})
HARMLESS: Final = frozenset({"helm", "nvidia-smi", "bash", "lscpu", "uname", "ldconfig", "nvcc"})
"""Programs that a command may ask."""
LONGEST_ERROR: Final = 6000
SCHEMAS: Final = Path(__file__).parents[2] / "docs" / "reference" / "schemas"
VALIDATORS: Final = {
    (schema := json.loads(file.read_text()))["title"]: jsonschema_rs.validator_for(schema)
    for file in sorted(SCHEMAS.glob("*.json"))
}


class WouldStartError(BaseException):
    """The command was about to start a program, or to send a signal."""


class HangError(AssertionError):
    """The command did not end."""


class Ran(NamedTuple):
    """What a command line did."""

    code: int | None
    """None where it was about to start a program."""
    out: str
    err: str


def ran(*argv: str, may_start: bool = False, given: bytes = b"") -> Ran:
    """Run it and check what holds for every input.

    Args:
        argv: the words.
        may_start: whether it is no fault that it wants to start a program.
        given: what it reads; numbers that are none may stand in the output where they stand here.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors=how) for how in ("strict", "backslashreplace"))
    with _held(out, err):
        try:
            code: int | None = run(list(argv))
        except WouldStartError:
            if not may_start:
                raise
            code = None
    said = Ran(code, _text(out), _text(err))
    _check(argv, said, given)
    return said


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    data: bytes = stream.buffer.getvalue()  # type: ignore[attr-defined]
    return data.decode()


def _check(argv: tuple[str, ...], said: Ran, given: bytes) -> None:
    code, out, err = said
    assert code is None or code in DOCUMENTED, (code, argv, err)
    assert "Traceback" not in out + err, (argv, out + err)
    if code not in (0, None, 5, 130) and not out:
        assert err.strip(), f"exit {code} without a reason: {argv}"
    if code == 2:
        assert "Error: " in err, (argv, err)
        assert len(err) < LONGEST_ERROR, (argv, len(err))
    words = " ".join(argv).replace("=", " ") + given.decode(errors="replace")
    if not NON_FINITE.search(words):
        assert not (found := NON_FINITE.search(out)), (argv, out[max(0, found.start() - 80) :][:160])
    if code == 0 and "--json" in argv and argv[0] not in ("logs", "serve"):
        check_json(out)
    left = [path.name for path in HOME.glob(".*")]
    assert not left, f"{argv} left {left}"


def check_json(text: str) -> Any:
    """Strict JSON, and what its schema says where it names one."""
    value = json.loads(text, parse_constant=lambda word: pytest_fail(f"{word} is no JSON"))
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema in VALIDATORS:
        problem = next(iter(VALIDATORS[schema].iter_errors(value)), None)
        assert problem is None, f"{schema}: {problem}"
    return value


def pytest_fail(message: str) -> None:
    raise AssertionError(message)


def check_output(path: Path) -> None:
    """As it was, or whole."""
    data = path.read_bytes() if path.is_file() else BEFORE
    if data == BEFORE:
        return
    if path.suffix == ".json":
        json.loads(data)
    elif path.suffix == ".html":
        assert data.rstrip().endswith(b"</html>"), path
    else:
        assert data.endswith(b"\n"), path


@contextlib.contextmanager
def _held(out: io.TextIOWrapper, err: io.TextIOWrapper) -> Iterator[None]:
    """Streams of its own, a time limit, and neither programs, signals nor the network."""
    patches = (
        mock.patch.object(command_line, "_fault", _raise), mock.patch.object(os, "kill", _refuse("kill")),
        mock.patch.object(os, "killpg", _refuse("killpg")),
        mock.patch.object(os, "fork", _refuse("fork")),
        mock.patch.object(subprocess.Popen, "__init__", _popen),
        mock.patch.object(socket.socket, "connect", _connect),
        mock.patch.object(socket, "getaddrinfo", _getaddrinfo),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO())),
        contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(HOME), _timed(),
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def _raise(error: Exception) -> None:
    """In place of the sentence in which the command line confesses a fault."""
    raise error


def _refuse(what: str) -> Any:
    def refuse(*args: Any) -> None:
        raise WouldStartError(f"{what}{args}")

    return refuse


_POPEN = subprocess.Popen.__init__
_CONNECT = socket.socket.connect
_GETADDRINFO = socket.getaddrinfo


def _popen(self: Any, args: Any, *more: Any, **options: Any) -> None:
    words = [args] if isinstance(args, str) else [str(word) for word in args]
    if Path(words[0]).name not in HARMLESS:
        raise WouldStartError(" ".join(words))
    _POPEN(self, args, *more, **options)


def _connect(self: socket.socket, address: Any) -> None:
    if isinstance(address, tuple) and address[0] not in LOOPBACK:
        raise OSError(101, "Network is unreachable")
    _CONNECT(self, address)


def _getaddrinfo(host: Any, *more: Any, **options: Any) -> Any:
    if host not in LOOPBACK and host is not None:
        raise socket.gaierror(-2, "Name or service not known")
    return _GETADDRINFO(host, *more, **options)


@contextlib.contextmanager
def _timed() -> Iterator[None]:
    """CPU time, and time that passes; at pytest's own limit hypothesis would go through the hang again."""

    def end(number: int, _: Any) -> None:
        raise HangError(signal.Signals(number).name)

    kinds = {signal.SIGPROF: (signal.ITIMER_PROF, CPU_S), signal.SIGALRM: (signal.ITIMER_REAL, WAIT_S)}
    before = {number: signal.signal(number, end) for number in kinds}
    for timer, seconds in kinds.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _ in kinds.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
