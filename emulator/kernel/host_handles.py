"""Things of the host held open: a descriptor on its way to a description, a directory."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emulator.kernel.host import Host


class HostFd:
    """Owns a host descriptor that has no description yet; closes it when it is dropped."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def take(self) -> int:
        """Give up ownership."""
        number, self.number = self.number, -1
        return number

    def close(self) -> None:
        """Close now."""
        if self.number >= 0:
            with contextlib.suppress(OSError):
                os.close(self.take())

    def __del__(self) -> None:
        self.close()


_DIRECTORY_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW


class HostDirectory:
    """A directory of the host, held open (O_PATH)."""

    __slots__ = ("_holder", "fd", "host")

    def __init__(self, host: Host, fd: int) -> None:
        """Takes the descriptor over."""
        self.host = host
        self.fd = fd
        self._holder = HostFd(fd)

    def same(self, other: HostDirectory) -> bool:
        """Is it the same directory?"""
        if self.fd == other.fd:
            return True
        mine, its = self.host.fstat(self.fd), other.host.fstat(other.fd)
        return mine.st_ino == its.st_ino and mine.st_dev == its.st_dev

    def enter(self, name: bytes) -> HostDirectory:
        """Open a subdirectory that is not a symbolic link."""
        return HostDirectory(self.host, self.host.open(name, _DIRECTORY_FLAGS, 0, self.fd))
