"""Descriptors: small numbers for open file descriptions.

Rule: the lowest free number, always; a number is free again before its description is closed.
Sources: man 2 open, dup, close_range, fcntl; fs/file.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description

DEFAULT_LIMIT = 1024


class FdTable:
    """files_struct: shared by CLONE_FILES, copied by fork.  `limit` is RLIMIT_NOFILE; setrlimit writes it."""

    __slots__ = ("_cloexec", "_hint", "_slots", "limit", "users")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._slots: dict[int, Description] = {}
        self._cloexec: set[int] = set()
        self._hint = 0  # no free number is below
        self.limit = limit
        self.users = 1

    # -- looking up ----------------------------------------------------------------------------------------------

    def get(self, fd: int) -> Description:
        """The description for an operation on the file; EBADF for an O_PATH descriptor too (fdget)."""
        description = self._slots.get(fd)
        if description is None or description.path_only:
            raise LinuxError(E.EBADF)
        return description

    def get_raw(self, fd: int) -> Description:
        """The description, O_PATH included (fdget_raw): fstat, dup, fchdir, fcntl's F_GETFL, dirfd arguments."""
        description = self._slots.get(fd)
        if description is None:
            raise LinuxError(E.EBADF)
        return description

    def __contains__(self, fd: int) -> bool:
        return fd in self._slots

    def __iter__(self) -> Iterator[tuple[int, Description]]:
        return iter(sorted(self._slots.items()))

    def __len__(self) -> int:
        return len(self._slots)

    def cloexec(self, fd: int) -> bool:
        """FD_CLOEXEC of a descriptor."""
        self.get_raw(fd)
        return fd in self._cloexec

    def set_cloexec(self, fd: int, on: bool) -> None:
        """F_SETFD, FIOCLEX, FIONCLEX."""
        self.get_raw(fd)
        if on:
            self._cloexec.add(fd)
        else:
            self._cloexec.discard(fd)

    # -- changing ------------------------------------------------------------------------------------------------

    def lowest_free(self, lowest: int = 0) -> int:
        """The number `allocate` would choose; EMFILE past the limit."""
        fd = max(lowest, self._hint)
        while fd in self._slots:
            fd += 1
        if lowest <= self._hint:
            self._hint = fd
        if fd >= self.limit:
            raise LinuxError(E.EMFILE)
        return fd

    def allocate(self, description: Description, lowest: int = 0, cloexec: bool = False) -> int:
        """Give the description the lowest free number from `lowest` on.

        On EMFILE a description nobody uses yet is closed, so a caller need not clean up.
        """
        try:
            fd = self.lowest_free(lowest)
        except LinuxError:
            if description.references == 0:
                description.close()
            raise
        self._put(fd, description, cloexec)
        return fd

    def allocate_pair(self, first: Description, second: Description, cloexec: bool = False) -> tuple[int, int]:
        """Both or neither (pipe, socketpair)."""
        try:
            one = self.allocate(first, cloexec=cloexec)
        except LinuxError:
            second.close()
            raise
        try:
            return one, self.allocate(second, cloexec=cloexec)
        except LinuxError:
            self.close(one)
            raise

    def dup(self, fd: int, lowest: int = 0, cloexec: bool = False) -> int:
        """dup(2), F_DUPFD: EINVAL when `lowest` is past the limit."""
        description = self.get_raw(fd)
        if not 0 <= lowest < self.limit:
            raise LinuxError(E.EINVAL)
        return self.allocate(description, lowest, cloexec)

    def dup_onto(self, old: int, new: int, cloexec: bool = False) -> int:
        """dup2(2) and dup3(2) for different numbers; the one that was there is closed."""
        if not 0 <= new < self.limit:
            raise LinuxError(E.EBADF)
        description = self.get_raw(old)
        replaced = self._slots.get(new)
        description.retain()  # before the close: it may be the last other user
        if replaced is not None:
            del self._slots[new]
            self._cloexec.discard(new)
            replaced.descriptor_closed(self)
            replaced.release()
        self._put(new, description, cloexec)
        description.references -= 1
        return new

    def close(self, fd: int) -> None:
        """close(2)."""
        description = self._slots.pop(fd, None)
        if description is None:
            raise LinuxError(E.EBADF)
        self._cloexec.discard(fd)
        self._hint = min(self._hint, fd)
        description.descriptor_closed(self)
        description.release()

    def close_range(self, first: int, last: int, *, only_cloexec: bool = False) -> None:
        """close_range(2); with `only_cloexec` the descriptors are marked instead (CLOSE_RANGE_CLOEXEC)."""
        for fd in [fd for fd in self._slots if first <= fd <= last]:
            if only_cloexec:
                self._cloexec.add(fd)
            else:
                self.close(fd)

    def _put(self, fd: int, description: Description, cloexec: bool) -> None:
        self._slots[fd] = description.retain()
        if cloexec:
            self._cloexec.add(fd)
        else:
            self._cloexec.discard(fd)
        if fd == self._hint:
            self._hint += 1

    # -- lifetime ------------------------------------------------------------------------------------------------

    def share(self) -> FdTable:
        """CLONE_FILES: one more user of the same table."""
        self.users += 1
        return self

    def fork(self) -> FdTable:
        """A copy with the same descriptors (fork; unshare(CLONE_FILES))."""
        child = FdTable(self.limit)
        for fd, description in self._slots.items():
            child._slots[fd] = description.retain()
        child._cloexec = set(self._cloexec)
        child._hint = self._hint
        return child

    def close_on_exec(self) -> None:
        """execve(2): close what is marked."""
        for fd in sorted(self._cloexec):
            self.close(fd)

    def leave(self) -> None:
        """A user goes away (exit, or exec after unshare); the last one closes everything."""
        self.users -= 1
        if self.users <= 0:
            for fd in sorted(self._slots):
                self.close(fd)

    release = leave
