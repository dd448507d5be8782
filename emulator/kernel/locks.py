"""File locks.

Rule: flock and OFD locks belong to an open file description, as on the host, so the host keeps them.  POSIX locks
belong to a guest process, which the host does not know: they are kept here, and every range is mirrored to the host
as an OFD lock of a description of our own, so that host programs and other guests see them too.
Sources: man 2 fcntl ("Advisory record locking", "Open file description locks"), man 2 flock, fs/locks.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import F, O
from emulator.errors import LinuxError
from emulator.kernel.host import Host
from emulator.kernel.host_handles import HostFd
from emulator.kernel.waits import WaitQueue

if TYPE_CHECKING:
    from emulator.kernel.files.regular import RegularFile

TO_END = (1 << 63) - 1
RETRY_NS = 20_000_000  # how soon a lock given up by a host program is noticed
_FLOCK = struct.Struct("hhqqi4x")  # the host's struct flock


@dataclass(slots=True)
class Lock:
    """A locked range, `end` inclusive."""

    owner: object
    pid: int
    kind: int  # F.RDLCK or F.WRLCK
    start: int
    end: int

    def conflicts(self, owner: object, kind: int, start: int, end: int) -> bool:
        """Would such a lock have to wait for this one?"""
        if self.owner is owner or self.end < start or end < self.start:
            return False
        return kind == F.WRLCK or self.kind == F.WRLCK


class Inode:
    """The POSIX locks of one file."""

    __slots__ = ("locks", "mirrors", "waiting")

    def __init__(self) -> None:
        self.locks: list[Lock] = []
        self.mirrors: dict[int, HostFd] = {}  # id(owner) -> host description that holds its ranges
        self.waiting = WaitQueue()


class Locks:
    """All locks of the machine."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._inodes: dict[tuple[int, int], Inode] = {}
        self._blocked: dict[object, object] = {}  # owner -> owner it waits for: deadlock detection

    @property
    def any_posix(self) -> bool:
        """Is there any POSIX lock at all?  (every close(2) asks)"""
        return bool(self._inodes)

    def inode(self, file: RegularFile) -> Inode:
        """The locks of a file; also where waiters of every kind of lock queue."""
        status = file.stat()
        key = (status.st_dev, status.st_ino)
        found = self._inodes.get(key)
        if found is None:
            found = self._inodes[key] = Inode()
        return found

    # -- open file descriptions ----------------------------------------------------------------------------------

    def set_open_file(self, file: RegularFile, kind: int, start: int, end: int) -> None:
        """F_OFD_SETLK: on the host's own description; EAGAIN when another lock is in the way."""
        length = 0 if end == TO_END else end - start + 1
        try:
            self.host.fcntl(file.need_host_fd(), F.OFD_SETLK, _FLOCK.pack(kind, 0, start, length, 0))
        except LinuxError as error:
            raise LinuxError(E.EAGAIN if error.errno is E.EACCES else error.errno) from None
        file.locks_used = True
        self.inode(file).waiting.wake()

    # -- POSIX ---------------------------------------------------------------------------------------------------

    def test(self, file: RegularFile, owner: object, kind: int, start: int, end: int) -> Lock | None:
        """F_GETLK: a lock that is in the way; pid -1 for one that is not a guest process's."""
        for lock in self.inode(file).locks:
            if lock.conflicts(owner, kind, start, end):
                return lock
        mirror = self.inode(file).mirrors.get(id(owner))
        return self._ask_host(mirror.number if mirror else file.need_host_fd(), kind, start, end)

    def _ask_host(self, fd: int, kind: int, start: int, end: int) -> Lock | None:
        length = 0 if end == TO_END else end - start + 1
        answer = self.host.fcntl(fd, F.OFD_GETLK, _FLOCK.pack(kind, 0, start, length, 0))
        found, _, at, size, _pid = _FLOCK.unpack(answer) if isinstance(answer, bytes) else (F.UNLCK, 0, 0, 0, 0)
        if found == F.UNLCK:
            return None
        return Lock(None, -1, found, at, TO_END if size == 0 else at + size - 1)

    def set(self, file: RegularFile, owner: object, pid: int, kind: int, start: int, end: int) -> None:
        """F_SETLK: EAGAIN when another lock is in the way.  F.UNLCK unlocks."""
        inode = self.inode(file)
        if kind != F.UNLCK:
            for lock in inode.locks:
                if lock.conflicts(owner, kind, start, end):
                    raise LinuxError(E.EAGAIN)
        self._mirror(inode, file, owner, kind, start, end)
        kept: list[Lock] = []
        for lock in inode.locks:
            if lock.owner is not owner or lock.end < start or end < lock.start:
                kept.append(lock)
                continue
            if lock.start < start:
                kept.append(Lock(owner, pid, lock.kind, lock.start, start - 1))
            if lock.end > end:
                kept.append(Lock(owner, pid, lock.kind, end + 1, lock.end))
        if kind != F.UNLCK:
            kept.append(Lock(owner, pid, kind, start, end))
        inode.locks = _merged(kept, owner)
        inode.waiting.wake()

    def _mirror(self, inode: Inode, file: RegularFile, owner: object, kind: int, start: int, end: int) -> None:
        mirror = inode.mirrors.get(id(owner))
        if mirror is None:
            if kind == F.UNLCK:
                return
            fd = self.host.open_again(file.need_host_fd(), O.RDWR)
            if fd is None:
                fd = self.host.open_again(file.need_host_fd(), file.flags & O.ACCMODE)
            if fd is None:
                return
            mirror = inode.mirrors[id(owner)] = HostFd(fd)
        length = 0 if end == TO_END else end - start + 1
        try:
            self.host.fcntl(mirror.number, F.OFD_SETLK, _FLOCK.pack(kind, 0, start, length, 0))
        except LinuxError as error:
            if error.errno in (E.EAGAIN, E.EACCES):
                raise LinuxError(E.EAGAIN) from None
            if error.errno is not E.EBADF:  # a read-only description cannot hold a write lock for us
                raise

    def would_deadlock(self, file: RegularFile, owner: object, kind: int, start: int, end: int) -> bool:
        """EDEADLK: does the holder, through others, wait for `owner`?  Notes that `owner` waits."""
        holder: object = next(
            (lock.owner for lock in self.inode(file).locks if lock.conflicts(owner, kind, start, end)), None
        )
        if holder is None:
            return False
        seen = holder
        for _ in range(64):
            if seen is owner:
                return True
            if seen not in self._blocked:
                break
            seen = self._blocked[seen]
        self._blocked[owner] = holder
        return False

    def waits_no_more(self, owner: object) -> None:
        """A waiting owner got its lock, or gave up."""
        self._blocked.pop(owner, None)

    def drop_owner(self, file: RegularFile, owner: object) -> None:
        """close(2) of any descriptor of the file: all POSIX locks of that process on it go."""
        status = file.stat()
        key = (status.st_dev, status.st_ino)
        inode = self._inodes.get(key)
        if inode is None:
            return
        before = len(inode.locks)
        inode.locks = [lock for lock in inode.locks if lock.owner is not owner]
        mirror = inode.mirrors.pop(id(owner), None)
        if mirror is not None:
            mirror.close()
        if len(inode.locks) != before:
            inode.waiting.wake()
        if not inode.locks and not len(inode.waiting):
            del self._inodes[key]

    def description_closed(self, file: RegularFile) -> None:
        """Its flock and OFD locks go with it: wake who waits."""
        self.inode(file).waiting.wake()

    def all_locks(self) -> list[tuple[tuple[int, int], Lock]]:
        """For /proc/locks."""
        return [(key, lock) for key, inode in self._inodes.items() for lock in inode.locks]


def _merged(locks: list[Lock], owner: object) -> list[Lock]:
    """Join neighbouring ranges of one owner and kind; the others stay as they are."""
    mine = sorted((lock for lock in locks if lock.owner is owner), key=lambda lock: lock.start)
    result = [lock for lock in locks if lock.owner is not owner]
    previous: Lock | None = None
    for lock in mine:
        if previous is not None and previous.kind == lock.kind and previous.end + 1 >= lock.start:
            previous.end = max(previous.end, lock.end)
            continue
        result.append(lock)
        previous = lock
    return result
