"""The host's failures by name.

Rule: what a host call raises becomes a `LinuxError` here, the errno-less failures of Python included; no host number
goes further.  Source: errno(3).
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

from emulator.abi.errno import E
from emulator.errors import LinuxError

_ALIASES = {"EDEADLOCK": E.EDEADLK, "EWOULDBLOCK": E.EAGAIN, "ENOTSUP": E.EOPNOTSUPP, "ECANCELLED": E.ECANCELED}
_BY_NUMBER: dict[int, E] = {
    number: _ALIASES[name] if name in _ALIASES else E[name]
    for number, name in errno.errorcode.items()
    if name in _ALIASES or name in E.__members__
}
_RESOLVER = (socket.gaierror, socket.herror)  # their numbers are not errnos


def by_number(number: int) -> E:
    """Return the errno the host calls `number`; EIO for one that Linux does not have."""
    return _BY_NUMBER.get(number, E.EIO)


def linux_error(error: BaseException) -> LinuxError:
    """Translate a failure of a host call; what Python reports without an errno has a defined one here."""
    if isinstance(error, OSError) and isinstance(error.errno, int) and not isinstance(error, _RESOLVER):
        return LinuxError(by_number(error.errno))
    match error:
        case LinuxError():
            return error
        case socket.gaierror() | socket.herror():
            return LinuxError(E.EADDRNOTAVAIL)
        case TimeoutError():
            return LinuxError(E.ETIMEDOUT)
        case OSError():  # "AF_UNIX path too long" and its like
            return LinuxError(E.EINVAL)
        case UnicodeError():
            return LinuxError(E.EILSEQ)
        case OverflowError():
            return LinuxError(E.EINVAL)
        case ValueError():
            text = str(error)
            closed = "closed file" in text or "file descriptor" in text
            return LinuxError(E.EBADF if closed else E.EINVAL)
        case MemoryError():
            return LinuxError(E.ENOMEM)
        case _:
            return LinuxError(E.EIO)


FAILURES = (OSError, ValueError, OverflowError, MemoryError)  # UnicodeError is a ValueError


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Run a block of host calls; its failures leave as LinuxError."""
    try:
        yield
    except FAILURES as error:
        raise linux_error(error) from None
