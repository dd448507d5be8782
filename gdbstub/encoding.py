"""Bytes on the wire: hex, escapes, checksums (manual: "Overview").

Rule: everything here runs at the speed of the bytes methods; no Python loop over bytes.  Replies are not run-length
encoded: over a socket it costs more than it saves; but `*` is escaped, because clients decode it.
"""

from __future__ import annotations

import re
from binascii import Error as HexError
from binascii import hexlify, unhexlify
from zlib import adler32

from gdbstub.errors import Malformed

_CHUNK = 256  # adler32's low half is 1 + sum(bytes) modulo 65521: exact for as many bytes
_ADDRESS_LIMIT = 1 << 64
_ANY_ESCAPE = re.compile(rb"\}(.)", re.DOTALL)


def checksum(data: bytes) -> int:
    """Sum of the bytes modulo 256."""
    if len(data) <= 2 * _CHUNK:
        return sum(data) & 0xFF
    view = memoryview(data)
    total = 0
    for start in range(0, len(data), _CHUNK):
        total += adler32(view[start : start + _CHUNK]) - 1
    return total & 0xFF


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
    escapes = data.count(b"}")
    if not escapes:
        return data
    plain = data.replace(b"}\x03", b"#").replace(b"}\x04", b"$").replace(b"}\x0a", b"*").replace(b"}]", b"}")
    if len(data) - len(plain) == escapes and b"}}" not in data:
        return plain
    if len(data) - len(data.rstrip(b"}")) & 1:
        raise Malformed("an escape at the end")
    return _ANY_ESCAPE.sub(lambda match: bytes((match[1][0] ^ 0x20,)), data)


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
