"""A byte stream into packets, sans-IO (manual: "Overview", "Packet Acknowledgment").

Rule: any bytes in any portions are accepted; what is not a packet, an acknowledgement or an interrupt is skipped.
"""

from __future__ import annotations

from enum import Enum

from gdbstub.encoding import checksum


class Mark(Enum):
    """Whatever arrives that is not a good packet."""

    ACK = "+"
    NACK = "-"
    INTERRUPT = "\x03"
    CORRUPT = "a packet with a wrong checksum"
    OVERSIZE = "a packet longer than the limit"


Item = bytes | Mark
_MARKS = {ord("+"): Mark.ACK, ord("-"): Mark.NACK, 3: Mark.INTERRUPT}
_DOLLAR = ord("$")
_HEX = b"0123456789abcdefABCDEF"


class Framing:
    """Incoming half of a connection: `feed` bytes, get payloads and marks in order of arrival."""

    __slots__ = ("_buffer", "_discarding", "_limit", "_scanned")

    def __init__(self, limit: int) -> None:
        """`limit`: longest payload taken, in bytes as they are on the wire."""
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0  # up to here the buffer holds no '#'
        self._discarding = False

    def feed(self, data: bytes) -> list[Item]:
        """Everything that is complete with these bytes."""
        # The usual case: one whole packet, nothing before, nothing behind.
        if not self._buffer and data[:1] == b"$" and data[-3:-2] == b"#":
            end = data.find(b"#")
            if end == len(data) - 3 <= self._limit:
                return [_checked(data[1:end], data[end + 1 :])]
        self._buffer += data
        return self._take()

    def _take(self) -> list[Item]:
        items: list[Item] = []
        buffer = self._buffer
        position = 0
        while position < len(buffer):
            if self._discarding or buffer[position] == _DOLLAR:
                end = buffer.find(b"#", max(position, self._scanned))
                if end < 0 or end + 2 >= len(buffer):
                    self._scanned = len(buffer) if end < 0 else end
                    break
                self._scanned = 0
                if self._discarding or end - position - 1 > self._limit:
                    items.append(Mark.OVERSIZE)
                    self._discarding = False
                else:
                    items.append(_checked(bytes(buffer[position + 1 : end]), bytes(buffer[end + 1 : end + 3])))
                position = end + 3
                continue
            mark = _MARKS.get(buffer[position])
            if mark is not None:
                items.append(mark)
            position += 1
        del buffer[:position]
        self._scanned = max(0, self._scanned - position)
        if len(buffer) > self._limit + 4:
            # Too long already: forget it, and go on behind its end.
            self._discarding = True
            del buffer[: self._scanned]
            self._scanned = 0
        return items


def _checked(payload: bytes, digits: bytes) -> Item:
    if digits[0] not in _HEX or digits[1] not in _HEX:
        return Mark.CORRUPT
    expected = int(digits, 16)
    if checksum(payload) == expected:
        return payload
    # A packet that was cut off and sent again: what follows the last '$' may be whole.
    _, dollar, tail = payload.rpartition(b"$")
    if dollar and checksum(tail) == expected:
        return tail
    return Mark.CORRUPT
