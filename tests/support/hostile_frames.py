"""Frames that no honest prefill side sends, by name, and the word that the refusal must say."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from thunderserve.core.kv import KvLayout
from thunderserve.core.request import WireMode
from thunderserve.kvlink.codec import Int4Codec
from thunderserve.kvlink.protocol import (
    PROTOCOL_VERSION,
    Block,
    FrameHeader,
    FrameKind,
    encode_header,
    make_frame,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random


__all__ = ["Attack", "Scene", "attacks", "good_transfer", "sealed", "shuffled"]

_CHECKSUM = struct.Struct(">I")
_ENORMOUS = 2**32 - 1


@dataclass(frozen=True)
class Attack:
    """Bytes to send in a room, and a word of the error that must end it.

    Attributes:
        word: Empty when any reason will do.
    """

    name: str
    data: Callable[[Scene], bytes]
    word: str = ""


@dataclass(frozen=True)
class Scene:
    """The room that is attacked."""

    room: int
    layout: KvLayout
    cache: np.ndarray

    @property
    def page_count(self) -> int:
        return int(self.cache.shape[2])

    @property
    def whole(self) -> Block:
        return Block(0, self.layout.layer_count, 0, self.layout.kv_head_count, 0, self.page_count)

    def pages(self, block: Block | None = None) -> bytes:
        """A good frame of some pages, the values as they are."""
        block = block or self.whole
        payload = np.ascontiguousarray(self.cache[block.slices()]).tobytes()
        return self.frame(FrameKind.PAGES, payload, block=block)

    def page(self, number: int) -> bytes:
        return self.pages(replace(self.whole, first_page=number, page_count=1))

    def frame(
        self,
        kind: FrameKind,
        payload: bytes = b"",
        *,
        block: Block | None = None,
        mode: WireMode = WireMode.RAW16,
        fingerprint: int | None = None,
        room: int | None = None,
    ) -> bytes:
        ours = self.layout.fingerprint if fingerprint is None else fingerprint
        number = self.room if room is None else room
        header = make_frame(kind, number, ours, payload, wire_mode=mode, block=block)
        return encode_header(header) + payload

    @property
    def aux(self) -> bytes:
        return self.frame(FrameKind.AUX, b"first token")

    @property
    def end(self) -> bytes:
        return self.frame(FrameKind.END)


def good_transfer(scene: Scene) -> bytes:
    """All of a room in one frame, the aux data and the end."""
    return scene.pages() + scene.aux + scene.end


def sealed(frame: bytes, offset: int, new: bytes) -> bytes:
    """The frame with other header bytes, and a checksum that says they are right."""
    header = bytearray(frame[:60])
    header[offset : offset + len(new)] = new
    header[56:60] = _CHECKSUM.pack(_crc(bytes(header[:56])))
    return bytes(header) + frame[60:]


def attacks() -> Iterator[Attack]:
    """All of them."""
    yield from _headers()
    yield from _ranges()
    yield from _orders()
    yield from _scales()
    yield Attack("payload shorter than its block", _short_payload, "raw16 payload")
    yield Attack("payload longer than its block", _long_payload, "raw16 payload")
    yield Attack("int4 payload of another size", _wrong_int4, "int4 payload")


def _headers() -> Iterator[Attack]:
    """Each number of the header in turn, under a right checksum."""

    def attack(name: str, offset: int, new: bytes, word: str) -> Attack:
        # Behind a good frame: what belongs to no room that can be read ends its connection alone.
        return Attack(name, lambda s: s.page(0) + sealed(s.page(1), offset, new) + s.end, word)

    yield attack("other magic", 0, b"TSKW", "TSKV")
    for version in (0, PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, 0xFFFF):
        yield attack(f"protocol version {version}", 4, struct.pack(">H", version), "version")
    for kind in (0, len(FrameKind) + 1, 255):
        yield attack(f"kind {kind}", 6, bytes([kind]), "kind")
    for mode in (0, 3, 255):
        yield attack(f"wire mode {mode}", 7, bytes([mode]), "wire mode")
    for fingerprint in (0, 2**64 - 1):
        new = struct.pack(">Q", fingerprint)
        yield attack(f"fingerprint {fingerprint:x}", 8, new, "fingerprint")
    for size in (_ENORMOUS, 2**31, 4 * 1024 * 1024 + 1):
        yield attack(f"length {size}", 48, struct.pack(">I", size), "are taken")
    yield attack("length 0 of a payload that follows", 48, bytes(4), "payload of 0 bytes")


def _ranges() -> Iterator[Attack]:
    names = ("first layer", "layers", "first head", "heads", "first page", "pages")
    for place, name in enumerate(names):
        for value in (0, 1, 1000, 2**31, _ENORMOUS):
            if value <= 1 - place % 2 or (value == 1 and name in {"layers", "heads"}):
                continue  # as it is in an honest frame of this layout, or nearly
            new = struct.pack(">I", value)
            offset = 24 + 4 * place
            yield Attack(
                f"{name} {value}", lambda s, o=offset, n=new: sealed(s.pages(), o, n) + s.end
            )


def _orders() -> Iterator[Attack]:
    yield Attack("end alone", lambda s: s.end, "missing")
    yield Attack("end before aux", lambda s: s.pages() + s.end, "aux data is missing")
    yield Attack("aux and end", lambda s: s.aux + s.end, "missing")
    yield Attack("a page is missing", lambda s: s.page(0) + s.page(2) + s.aux + s.end, "missing")
    yield Attack("pages twice", lambda s: s.pages() + s.pages(), "came before")
    yield Attack("pages overlap", lambda s: s.page(1) + s.pages(), "came before")
    yield Attack("aux twice", lambda s: s.aux + s.aux, "twice")
    yield Attack("COMMITTED from the sender", lambda s: s.frame(FrameKind.COMMITTED), "COMMITTED")
    yield Attack("PROBE amid a room", lambda s: s.page(0) + s.frame(FrameKind.PROBE), "PROBE amid")
    yield Attack("another room amid this one's", lambda s: s.page(0) + _of_room(s, 999_999), "amid")


def _scales() -> Iterator[Attack]:
    """Scales that would decode to NaN or infinity, or that cross."""
    for name, least, greatest in (
        ("NaN", 0x7FC0, 0x7FC0),
        ("infinite", 0, 0x7F80),
        ("minus infinite", 0xFF80, 0),
        ("crossed", 0x4000, 0x3F80),
    ):
        yield Attack(f"{name} scales", lambda s, a=least, b=greatest: _int4(s, a, b), "scales")


def _short_payload(scene: Scene) -> bytes:
    return scene.frame(FrameKind.PAGES, bytes(10), block=scene.whole) + scene.end


def _long_payload(scene: Scene) -> bytes:
    size = scene.whole.raw_bytes(scene.layout) + 2
    return scene.frame(FrameKind.PAGES, bytes(size), block=scene.whole) + scene.end


def _wrong_int4(scene: Scene) -> bytes:
    frame = scene.frame(FrameKind.PAGES, bytes(10), block=scene.whole, mode=WireMode.INT4)
    return frame + scene.end


def _int4(scene: Scene, least: int, greatest: int) -> bytes:
    layout, whole = scene.layout, scene.whole
    size = Int4Codec(layout).payload_bytes(whole.layer_count, whole.page_count)
    payload = bytearray(size)
    channels = layout.kv_head_count * layout.head_dim
    ends = np.frombuffer(payload, np.uint16, count=2 * channels)
    ends[:channels], ends[channels:] = least, greatest
    frame = scene.frame(FrameKind.PAGES, bytes(payload), block=whole, mode=WireMode.INT4)
    return frame + scene.end


def _of_room(scene: Scene, room: int) -> bytes:
    return scene.frame(FrameKind.AUX, b"x", room=room)


def _crc(data: bytes) -> int:
    header: FrameHeader = make_frame(FrameKind.AUX, 0, 0, data)
    return header.payload_crc


def shuffled(scene: Scene, rng: Random) -> bytes:
    """A transfer whose frames were dropped, doubled, moved, cut or rewritten under right checksums.

    Values are left as they are, so that what commits all the same must be exact.
    """
    frames = [scene.page(0), scene.page(1), scene.page(2), scene.aux, scene.end]
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(frames))
        match rng.randrange(5):
            case 0 if len(frames) > 1:
                del frames[at]
            case 1:
                frames.insert(rng.randrange(len(frames) + 1), frames[at])
            case 2:
                frames.append(frames.pop(at))
            case 3:
                frames[at] = frames[at][: rng.randrange(len(frames[at]))]
            case _:
                offset = rng.randrange(56)
                frames[at] = sealed(frames[at].ljust(60, b"\0"), offset, rng.randbytes(1))
    return b"".join(frames)
