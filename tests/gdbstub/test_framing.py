"""The byte stream: every case whole, byte by byte, and with something behind it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdbstub.encoding import escape, frame
from gdbstub.framing import Framing, Item, Mark

LIMIT = 1000
CASES: list[tuple[bytes, list[Item]]] = [
    (b"$g#67", [b"g"]),
    (b"$#00", [b""]),
    (b"$OK#9A", [b"OK"]),
    (b"+$g#67", [Mark.ACK, b"g"]),
    (b"-", [Mark.NACK]),
    (b"\x03", [Mark.INTERRUPT]),
    (b"$g#67\x03", [b"g", Mark.INTERRUPT]),
    (b"\x03$g#67", [Mark.INTERRUPT, b"g"]),
    (b"$g#67$g#67+", [b"g", b"g", Mark.ACK]),
    (b"$g#68", [Mark.CORRUPT]),
    (b"$g#6x", [Mark.CORRUPT]),
    (b"$g# 7", [Mark.CORRUPT]),
    (b"garbage$g#67", [b"g"]),
    (b"$m1000,$g#67", [b"g"]),  # cut off, sent again
    (b"#67$g#67", [b"g"]),
    (frame(b"X0,1:\x03"), [b"X0,1:\x03"]),  # 3 in a packet is data
    (frame(b"X0,4:" + escape(b"#$}*")), [b"X0,4:" + escape(b"#$}*")]),
    (frame(b"a" * LIMIT), [b"a" * LIMIT]),
    (frame(b"a" * (LIMIT + 1)), [Mark.OVERSIZE]),
    (frame(b"a" * 5 * LIMIT) + b"$g#67", [Mark.OVERSIZE, b"g"]),
]


@pytest.mark.parametrize(("data", "items"), CASES)
def test_whole(data: bytes, items: list[Item]) -> None:
    assert Framing(LIMIT).feed(data) == items


@pytest.mark.parametrize(("data", "items"), CASES)
def test_byte_by_byte(data: bytes, items: list[Item]) -> None:
    framing = Framing(LIMIT)
    assert [item for byte in data for item in framing.feed(bytes((byte,)))] == items


@pytest.mark.parametrize(("data", "items"), CASES)
def test_with_trailing_data(data: bytes, items: list[Item]) -> None:
    framing = Framing(LIMIT)
    assert framing.feed(data + b"$qC") == items
    assert framing.feed(b"#b4+") == [b"qC", Mark.ACK]


@given(st.lists(st.binary(max_size=50)), st.lists(st.binary(max_size=20)))
def test_anything_and_then_a_packet(garbage: list[bytes], payloads: list[bytes]) -> None:
    framing = Framing(100)
    for data in garbage:
        framing.feed(data)
    framing.feed(b"#00")  # whatever was open is closed
    for payload in payloads:
        escaped = escape(payload)
        assert framing.feed(frame(escaped)) == [escaped]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400)))
def test_portions_make_no_difference(data: bytes, cuts: list[int]) -> None:
    whole = Framing(10_000).feed(data)
    framing = Framing(10_000)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parts = [data[start:end] for start, end in pairwise(places)]
    assert [item for part in parts for item in framing.feed(part)] == whole
