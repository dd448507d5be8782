"""Bytes on the wire: hex, escapes, checksums (manual: "Overview").

Rule: everything here runs at the speed of the bytes methods; no Python loop over bytes.  Replies are not run-length
encoded: over a socket it costs more than it saves; but `*` is escaped, because clients decode it.
"""

from __future__ import annotations

from binascii import Error as HexError
from binascii import hexlify, unhexlify
from zlib import adler32

from gdbstub.errors import Malformed

# adler32's low half is 1 + sum(bytes) modulo 65521: exact for as many bytes, and twice as many in ASCII
_CHUNK, _ASCII_CHUNK = 256, 512
_ADDRESS_LIMIT = 1 << 64
_FLIPPED = tuple(bytes((byte ^ 0x20,)) for byte in range(256))


def checksum(data: bytes) -> int:
    """Sum of the bytes modulo 256."""
    length = len(data)
    if length <= 2 * _CHUNK:
        return sum(data) & 0xFF
    size = _ASCII_CHUNK if data.isascii() else _CHUNK
    chunks = [data[start : start + size] for start in range(0, length, size)]
    return sum(map(adler32, chunks)) - len(chunks) & 0xFF


def frame(payload: bytes) -> bytes:
    """`$payload#checksum`."""
    return b"$%b#%02x" % (payload, checksum(payload))


def frame_notification(payload: bytes) -> bytes:
    """`%payload#checksum`."""
    return b"%%%b#%02x" % (payload, checksum(payload))


def escape(data: bytes) -> bytes:
    """Binary data for a reply or request: `}` `#` `$` `*` become `}` and the byte ^ 0x20."""
    return data.replace(b"}", b"}]").replace(b"#", b"}\x03").replace(b"$", b"}\x04").replace(b"*", b"}\x0a")


def unescape(data: bytes) -> bytes:
    """Undo `escape`, whichever bytes the peer chose to escape; raises Malformed for a lone `}` at the end."""
    if b"}" not in data:
        return data
    head, *parts = data.split(b"}")
    if all(parts):  # no escaped `}` among them
        return head + b"".join([_FLIPPED[part[0]] + part[1:] for part in parts])
    out = [head]
    skip = False
    for part in parts:
        if skip:  # an escaped `}`: this one begins behind it
            out.append(part)
            skip = False
        elif part:
            out.append(_FLIPPED[part[0]])
            out.append(part[1:])
        else:
            out.append(b"]")
            skip = True
    # the last part is empty if the data ends with `}`, which then is no escape but lacks its byte
    if skip:
        raise Malformed("an escape at the end")
    return b"".join(out)


to_hex = hexlify


def from_hex(text: bytes) -> bytes:
    """Bytes from pairs of hex digits."""
    try:
        return unhexlify(text)
    except HexError:
        raise Malformed("not pairs of hex digits") from None


def hex_number(text: bytes) -> int:
    """An unsigned number of at most 64 bits, big-endian hex as everywhere in the protocol."""
    try:
        value = int(text, 16)
    except ValueError:
        raise Malformed(f"not a hex number: {text[:40]!r}") from None
    # int() also takes signs, blanks, underscores and 0x (which clients do send)
    if not 0 <= value < _ADDRESS_LIMIT or (text[0] in b"+- _" or b"_" in text):
        raise Malformed(f"not a hex number: {text[:40]!r}")
    return value


def run_length_decode(data: bytes) -> bytes:
    """Expand `c*n` (what a client does with replies; tests do).

    >>> run_length_decode(b"0* ")
    b'0000'
    """
    head, *parts = data.split(b"*")
    out = bytearray(head)
    for part in parts:
        if not out or not part or not 32 <= part[0] <= 126:
            raise Malformed("a run without a character or a count")
        out += out[-1:] * (part[0] - 29)
        out += part[1:]
    return bytes(out)
