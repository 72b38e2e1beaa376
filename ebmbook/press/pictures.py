"""Pictures as a page wants them: how large they are shown, films as a still and its frames.

A picture's size in CSS pixels is that of its figure at 96 to an inch. An SVG says it; a PNG does
where it names its density, as the records' do; one that names none is shown pixel by pixel.
"""

import base64
import json
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
INCH = 96  # CSS pixels
UNITS = {"pt": INCH / 72, "in": INCH, "px": 1, "": 1}
SVG = re.compile(rb'<svg\b[^>]*?\swidth="([\d.]+)(\w*)"[^>]*?\sheight="([\d.]+)(\w*)"', re.DOTALL)
# Of a whole film and not of a frame.
ANIMATED = (b"acTL", b"fcTL", b"fdAT")
# Between the header and the pixels, and valid for each frame.
SHARED = (b"PLTE", b"tRNS", b"pHYs", b"gAMA", b"sRGB")


@dataclass(frozen=True)
class Frame:
    """A frame of a film.

    Attributes:
        left, top: where it goes, in pixels of the film.
        seconds: for which it is shown.
        over: whether it is painted over what is there, and does not replace it.
        clears: whether its place is empty afterwards.
        data: a PNG.
    """

    left: int
    top: int
    seconds: float
    over: bool
    clears: bool
    data: bytes


def size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG or SVG in CSS pixels.

    Raises:
        ValueError: it is neither, or does not say.
    """
    if data.startswith(SIGNATURE):
        width, height = struct.unpack(">II", data[16:24])
        share = INCH / (density(data) or INCH)
        return round(width * share), round(height * share)
    if found := SVG.search(data[:4000]):
        width, height = (
            float(found[i]) * UNITS.get(found[i + 1].decode(), float("nan")) for i in (1, 3)
        )
        if width == width and height == height:
            return round(width), round(height)
    raise ValueError("expected a PNG, or an SVG with its width and height in pt, in or px")


def density(data: bytes) -> float | None:
    """Pixels to an inch that a PNG names; None if it names none."""
    for kind, body in _chunks(data):
        if kind == b"pHYs" and body[8] == 1:
            return struct.unpack(">I", body[:4])[0] * 0.0254
    return None


def is_film(data: bytes) -> bool:
    """Whether this is an animated PNG."""
    return data.startswith(SIGNATURE) and any(kind == b"acTL" for kind, _ in _chunks(data))


def still(film: bytes) -> bytes:
    """What programs without animation show of a film, as a PNG."""
    kept = ((kind, body) for kind, body in _chunks(film) if kind not in ANIMATED)
    return SIGNATURE + b"".join(_chunk(*one) for one in kept)


def frames(film: bytes) -> list[Frame]:
    """The frames of an animated PNG, in order."""
    found, header, shared = [], b"", []
    control, pixels = None, []

    def finish() -> None:
        if control is not None:
            found.append(_frame(control, header, shared, b"".join(pixels)))

    for kind, body in _chunks(film):
        if kind == b"IHDR":
            header = body
        elif kind in SHARED:
            shared.append((kind, body))
        elif kind == b"fcTL":
            finish()
            control, pixels = body, []
        elif kind in (b"IDAT", b"fdAT"):
            # The pixels before the first control are of the still.
            pixels.append(body if kind == b"IDAT" else body[4:])
    finish()
    return found


def script(name: str, film: bytes) -> str:
    """The film as a script that hands it to its player, so that it can be loaded from the disk."""
    width, height = struct.unpack(">II", film[16:24])
    told = [
        [one.left, one.top, one.seconds, one.over, one.clears, base64.b64encode(one.data).decode()]
        for one in frames(film)
    ]
    given = json.dumps({"width": width, "height": height, "frames": told}, separators=(",", ":"))
    return f"bookFilm({json.dumps(name)},{given});\n"


def _frame(control: bytes, header: bytes, shared: list[tuple], pixels: bytes) -> Frame:
    _, width, height, left, top, over, under, dispose, blend = struct.unpack(
        ">IIIIIHHBB", control[:26]
    )
    parts = [(b"IHDR", struct.pack(">II", width, height) + header[8:]), *shared]
    parts += [(b"IDAT", pixels), (b"IEND", b"")]
    data = SIGNATURE + b"".join(_chunk(*one) for one in parts)
    return Frame(left, top, over / (under or 100), blend == 1, dispose != 0, data)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(SIGNATURE)
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        place += length + 12


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
