"""File leases: who holds a file open is told before somebody else opens it in a way that conflicts.

Rule: leases are the guest's own; whether one may be had the host is asked, which knows every open description of the
file.  The opener waits until the lease is given up, or is taken away after /proc/sys/fs/lease-break-time.
Sources: man 2 fcntl ("Leases"), fs/locks.c (generic_add_lease, __break_lease).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import F
from emulator.errors import LinuxError
from emulator.kernel.files.async_io import tell_owner
from emulator.kernel.waits import Block, Wait, WaitQueue

if TYPE_CHECKING:
    from emulator.kernel.files.regular import RegularFile
    from emulator.kernel.tasks import Task

Key = tuple[int, int]  # st_dev, st_ino


@dataclass(slots=True, eq=False)
class Lease:
    """One description's lease.  While it is being broken, `target` is what it has to become by `deadline_ns`."""

    file: RegularFile
    fd: int
    kind: int
    target: int | None = None
    deadline_ns: int | None = None

    def become(self, kind: int) -> None:
        """Set anew, lowered or given up: nothing is being broken any more."""
        self.kind, self.target, self.deadline_ns = kind, None, None


@dataclass(slots=True)
class _Inode:
    leases: list[Lease] = field(default_factory=list)
    changed: WaitQueue = field(default_factory=WaitQueue)


class Leases:
    """All leases of the machine."""

    def __init__(self) -> None:
        self._inodes: dict[Key, _Inode] = {}

    def __bool__(self) -> bool:
        return bool(self._inodes)

    def get(self, file: RegularFile) -> int:
        """F_GETLEASE: what it is, or will be once it has been broken."""
        lease = self._find(self._inodes.get(file.mmap_identity()), file)
        if lease is None:
            return F.UNLCK
        return lease.kind if lease.target is None else lease.target

    def set(self, t: Task, file: RegularFile, fd: int, kind: int) -> None:
        """F_SETLEASE with F_RDLCK or F_WRLCK: EAGAIN while others have the file open in a conflicting way."""
        key = file.mmap_identity()
        inode = self._inodes.get(key)
        mine = self._find(inode, file)
        t.kernel.host.probe_lease(file.need_host_fd(), kind)
        waiting = inode is not None and len(inode.changed) > 0  # somebody has the file half open
        for lease in inode.leases if inode is not None else ():
            opened = lease.target is not None and waiting
            if lease is mine and not (opened and (kind == F.WRLCK or lease.target == F.UNLCK)):
                continue
            if kind == F.WRLCK or lease.target == F.UNLCK:
                raise LinuxError(E.EAGAIN)
        if inode is None:
            inode = self._inodes[key] = _Inode()
        if mine is not None:
            mine.become(kind)
            inode.changed.wake()
            return
        inode.leases.append(Lease(file, fd, kind))
        if not file.async_owner:
            file.async_owner = t.pid
        file.on_release.append(lambda: self._drop(key, file))

    def unlock(self, file: RegularFile) -> None:
        """F_SETLEASE with F_UNLCK: EAGAIN if there is none."""
        key = file.mmap_identity()
        if self._find(self._inodes.get(key), file) is None:
            raise LinuxError(E.EAGAIN)
        self._drop(key, file)

    def break_for(self, t: Task, key: Key, *, write: bool, nonblocking: bool) -> None:
        """An open or truncate of the file: wait until no lease is in the way; EAGAIN instead with O_NONBLOCK."""
        inode = self._inodes.get(key)
        if inode is None:
            return
        now = t.kernel.clock.monotonic_ns()
        self._take_away(key, inode, now)
        in_the_way = [lease for lease in inode.leases if write or lease.kind == F.WRLCK]
        if not in_the_way:
            return
        target = F.UNLCK if write else F.RDLCK
        allowed = t.kernel.sysctls.number("fs/lease-break-time")
        for lease in in_the_way:
            if lease.target is None or (write and lease.target != F.UNLCK):
                lease.target = target
                lease.deadline_ns = now + allowed * 1_000_000_000 if allowed else None
                tell_owner(t.kernel, lease.file, lease.fd)
        if nonblocking:
            raise LinuxError(E.EAGAIN)
        deadlines = [lease.deadline_ns for lease in in_the_way if lease.deadline_ns is not None]
        raise Block(Wait("break_lease", (inode.changed,), (), min(deadlines, default=None)))

    def _take_away(self, key: Key, inode: _Inode, now: int) -> None:
        for lease in list(inode.leases):
            if lease.target is not None and lease.deadline_ns is not None and lease.deadline_ns <= now:
                if lease.target == F.UNLCK:
                    self._drop(key, lease.file)
                else:
                    lease.become(lease.target)

    def _find(self, inode: _Inode | None, file: RegularFile) -> Lease | None:
        return next((lease for lease in inode.leases if lease.file is file), None) if inode is not None else None

    def _drop(self, key: Key, file: RegularFile) -> None:
        inode = self._inodes.get(key)
        if inode is None:
            return
        inode.leases = [lease for lease in inode.leases if lease.file is not file]
        inode.changed.wake()
        if not inode.leases:
            del self._inodes[key]
