"""Hex, escapes, checksums, thread-ids, signals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdbstub import encoding
from gdbstub.errors import Malformed
from gdbstub.signals import Signal, parse_signal
from gdbstub.thread_id import EVERY, SOME, ThreadId, format_thread_id, parse_thread_id


@given(st.binary(max_size=5000))
def test_checksum_is_the_sum(data: bytes) -> None:
    assert encoding.checksum(data) == sum(data) % 256
    assert encoding.checksum(data * 7) == sum(data) * 7 % 256


def test_checksum_of_a_large_packet_of_large_bytes() -> None:
    assert encoding.checksum(b"\xff" * 300_001) == 255 * 300_001 % 256


@given(st.binary())
def test_escape_round_trip(data: bytes) -> None:
    escaped = encoding.escape(data)
    assert not set(escaped) & set(b"#$*")
    assert encoding.unescape(escaped) == data


@given(st.binary(), st.sets(st.integers(0, 255)))
def test_unescape_takes_whatever_was_escaped(data: bytes, chosen: set[int]) -> None:
    escaped = b"".join(bytes((0x7D, byte ^ 0x20)) if byte in chosen | {0x7D} else bytes((byte,)) for byte in data)
    assert encoding.unescape(escaped) == data


def test_a_lone_escape_is_malformed() -> None:
    with pytest.raises(Malformed):
        encoding.unescape(b"abc}")


@pytest.mark.parametrize(
    ("text", "value"), [(b"0", 0), (b"ff", 255), (b"FFFFFFFFFFFFFFFF", 2**64 - 1), (b"0x10", 16), (b"00001", 1)]
)
def test_hex_number(text: bytes, value: int) -> None:
    assert encoding.hex_number(text) == value


@pytest.mark.parametrize("text", [b"", b"-1", b"+1", b" 1", b"1_0", b"g", b"10000000000000000", b"\xff", b"_"])
def test_not_a_hex_number(text: bytes) -> None:
    with pytest.raises(Malformed):
        encoding.hex_number(text)


def test_run_length_decode() -> None:
    assert encoding.run_length_decode(b"0* ") == b"0000"
    assert encoding.run_length_decode(b"a0*\x22b") == b"a000000b"
    with pytest.raises(Malformed):
        encoding.run_length_decode(b"* ")


@pytest.mark.parametrize(
    ("text", "thread"),
    [
        (b"0", SOME),
        (b"-1", EVERY),
        (b"1f", ThreadId(0, 31)),
        (b"p1.2", ThreadId(1, 2)),
        (b"p2a.-1", ThreadId(42, -1)),
        (b"p2a", ThreadId(42, -1)),
        (b"p-1.-1", EVERY),
        (b"p0.0", SOME),
    ],
)
def test_thread_id(text: bytes, thread: ThreadId) -> None:
    assert parse_thread_id(text) == thread


@pytest.mark.parametrize("text", [b"", b"p", b"p.", b"p1.", b"x", b"-2", b"p-1.-3", b"1" * 30, b"p1_0.1"])
def test_not_a_thread_id(text: bytes) -> None:
    with pytest.raises(Malformed):
        parse_thread_id(text)


def test_thread_id_forms() -> None:
    assert format_thread_id(ThreadId(1, 31), multiprocess=True) == "p1.1f"
    assert format_thread_id(ThreadId(1, 31), multiprocess=False) == "1f"
    assert format_thread_id(EVERY, multiprocess=True) == "p-1.-1"


def test_patterns() -> None:
    assert ThreadId(1, -1).matches(ThreadId(1, 5))
    assert not ThreadId(1, -1).matches(ThreadId(2, 5))
    assert EVERY.matches(ThreadId(2, 5))


def test_signal_numbers_are_gdbs() -> None:
    # include/gdb/signals.def
    assert (Signal.SIGBUS, Signal.SIGUSR1, Signal.SIGCHLD, Signal.SIGPWR) == (10, 30, 20, 32)
    assert (Signal.SIG32, Signal.SIG33, Signal.SIG63, Signal.SIG64, Signal["SIG127"]) == (77, 45, 75, 78, 141)
    assert parse_signal(b"05") is Signal.SIGTRAP
    with pytest.raises(Malformed):
        parse_signal(b"ff")
