"""Pictures to send: generated ones that no cache has seen, or the user's own."""

from __future__ import annotations

import base64
import struct
import zlib
from random import Random
from typing import TYPE_CHECKING, Final

from qwenhost.errors import BadInputError
from qwenhost.probe.bodies import Image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MEDIA_TYPES: Final = ((_SIGNATURE, "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
MOST_PIXELS: Final = 64_000_000
_NOISE: Final = 4
"""Of 256 steps of brightness: compresses like a photograph's sky and not like white paper."""


def parse_size(text: str) -> tuple[int, int]:
    """``1024x768`` as width and height in pixels.

    Raises:
        BadInputError: another form, or more than 64 million pixels.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) * int(height) <= MOST_PIXELS):
        raise BadInputError(f"--image-size {text}: not a size", remedy="Write WIDTHxHEIGHT, e.g. 1024x768.")
    return int(width), int(height)


class GeneratedImages:
    """PNG pictures of one size that differ in their last row of pixels.

    The rest is compressed once; checksums go on from where they stood, so that a picture of megabytes
    costs no more than its copy.
    """

    def __init__(self, width: int, height: int, *, seed: int) -> None:
        self._width, self._seed = width, seed
        random_ = Random(f"image/{seed}")  # noqa: S311 - pixels, not secrets
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
        self._start = _SIGNATURE + _chunk(b"IHDR", head)
        packer = zlib.compressobj(6)
        self._adler = 1
        packed = bytearray()
        noise = random_.randbytes(3 * width + height)
        for row in range(height - 1):
            shade = 128 + 100 * row // height
            line = b"\0" + bytes(shade + value % _NOISE for value in noise[row : row + 3 * width])
            self._adler = zlib.adler32(line, self._adler)
            packed += packer.compress(line)
        packed += packer.flush(zlib.Z_FULL_FLUSH)
        self._start += _chunk(b"IDAT", bytes(packed))
        whole = len(self._start) // 3 * 3  # Base64 takes three bytes at a time.
        self._encoded, self._rest = base64.b64encode(self._start[:whole]).decode(), self._start[whole:]

    def __call__(self, index: int, number: int = 0) -> Image:
        """Picture ``number`` of a request."""
        random_ = Random(f"image/{self._seed}/{index}/{number}")  # noqa: S311
        line = b"\0" + random_.randbytes(3 * self._width)
        packer = zlib.compressobj(0, zlib.DEFLATED, -15)
        packed = packer.compress(line) + packer.flush()
        packed += struct.pack(">I", zlib.adler32(line, self._adler))
        end = self._rest + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")
        return Image(media_type="image/png", base64=self._encoded + base64.b64encode(end).decode())


class OwnImages:
    """The user's pictures, in order, round and round.

    Raises:
        BadInputError: unreadable, or neither PNG, JPEG, GIF nor WebP.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._images = [_read(path) for path in paths]

    def __call__(self, index: int, number: int = 0) -> Image:
        """The next."""
        return self._images[(index + number) % len(self._images)]


def _read(path: Path) -> Image:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"--image {path}: {error.strerror}", remedy="Name a picture file.") from error
    kinds = [kind for start, kind in _MEDIA_TYPES if data.startswith(start)]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kinds.append("image/webp")
    if not kinds:
        raise BadInputError(f"--image {path}: neither PNG, JPEG, GIF nor WebP", remedy="Convert it to PNG.")
    return Image(media_type=kinds[0], base64=base64.b64encode(data).decode())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
