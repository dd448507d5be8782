"""Files of the host: regular ones, directories, and paths opened for their own sake.

Rule: one guest description is one host description, so the offset, O_APPEND, flock and OFD locks are the host
kernel's, and forked guests share them as Linux has it.
Sources: man 2 open, read, lseek, getdents.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING
from zlib import crc32

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.memory import PAGE_SIZE
from emulator.abi.signals import Signal
from emulator.errors import LinuxError
from emulator.kernel import signals
from emulator.kernel.files.description import Description, NoData, ReadBuffers, Stat, WriteBuffers, gather, total
from emulator.kernel.files.virtual import pack_dirent
from emulator.kernel.host_handles import HostDirectory
from emulator.kernel.thread_group import RLIM_INFINITY, RLIMIT_FSIZE

if TYPE_CHECKING:
    from emulator.cpu.mmu import Arena, Frames
    from emulator.kernel.files.virtual import Node
    from emulator.kernel.locks import Locks
    from emulator.kernel.paths import Walker
    from emulator.kernel.tasks import Task

_SETTABLE = O.APPEND | O.NONBLOCK | O.ASYNC | O.DIRECT | O.NOATIME


_MEMORY_MAGIC = frozenset((0x01021994, 0x958458F6, 0x858458F6))
DT_UNKNOWN = 0
MAX_BYTES = (1 << 63) - 1  # file_mmap_size_max


class HostFile(Description):
    """What all descriptions with a host descriptor of their own share."""

    __slots__ = ("_fd", "walker")

    def __init__(self, walker: Walker, fd: int, flags: int, path: bytes = b"") -> None:
        super().__init__(walker.host, flags, path)
        self.walker = walker
        self._fd = fd

    def host_fd(self) -> int | None:
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self.host.close(fd)

    def stat(self) -> Stat:
        return self.host.fstat(self._fd)

    def readlink_text(self) -> bytes:
        return self.walker.guest_path(self._fd)

    def sync(self, data_only: bool) -> None:
        self.host.fsync(self._fd, data_only)

    def reopen(self, t: Task, flags: int) -> Description:
        return t.kernel.vfs.reopen_host(t, self._fd, flags)


def check_new_size(t: Task, file_size: int, length: int) -> None:
    """Growing past RLIMIT_FSIZE: SIGXFSZ and EFBIG (inode_newsize_ok)."""
    if length > file_size and length > t.group.rlimits[RLIMIT_FSIZE][0]:
        signals.send_to_task(t, signals.kernel_info(Signal.SIGXFSZ))
        raise LinuxError(E.EFBIG)


def tell_shrunk(t: Task, identity: tuple[int, int], size: int) -> None:
    """A file ends at `size` now: every process which has it mapped is told."""
    for group in t.kernel.groups.values():
        for task in group.tasks.values():
            task.space.file_shrank(identity, size)
            break  # the others have the same


def room_for_write(t: Task, offset: int, count: int) -> int:
    """How much of a write of `count` bytes at `offset` stays within RLIMIT_FSIZE (generic_write_check_limits)."""
    limit: int = t.group.rlimits[RLIMIT_FSIZE][0]
    if limit == RLIM_INFINITY or count <= limit - offset:
        return count
    if offset >= limit:
        signals.send_to_task(t, signals.kernel_info(Signal.SIGXFSZ))
        raise LinuxError(E.EFBIG)
    return limit - offset


def hit_size_limit(t: Task) -> None:
    """sendfile(2) and splice(2) go on after a short write, and meet the limit."""
    if t.group.rlimits[RLIMIT_FSIZE][0] != RLIM_INFINITY:
        signals.send_to_task(t, signals.kernel_info(Signal.SIGXFSZ))


def within_size_limit(t: Task, buffers: WriteBuffers, offset: int) -> WriteBuffers:
    """What of a write at `offset` stays within RLIMIT_FSIZE (generic_write_check_limits)."""
    count = total(buffers)
    room = room_for_write(t, offset, count)
    return buffers if room == count else [gather(buffers, room)]


class RegularFile(HostFile):
    """A regular file (also a memfd, a block device, a shared-memory object)."""

    __slots__ = ("locks", "locks_used")

    kind = "file"
    seekable = True
    splices_from = splices_to = True
    pollable = False

    def __init__(self, walker: Walker, fd: int, flags: int, locks: Locks | None = None, path: bytes = b"") -> None:
        super().__init__(walker, fd, flags, path)
        self.locks = locks
        self.locks_used = False

    def close(self) -> None:
        if self.locks_used and self.locks is not None:
            self.locks.description_closed(self)
        super().close()

    def descriptor_closed(self, owner: object) -> None:
        if self.locks is not None and self.locks.any_posix:
            self.locks.drop_owner(self, owner)

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        return self.host.readv(self._fd, buffers)

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        if t.group.rlimits[RLIMIT_FSIZE][0] != RLIM_INFINITY:
            at = self.stat().st_size if self.flags & O.APPEND else self.position()
            buffers = within_size_limit(t, buffers, at)
        return self.host.writev(self._fd, buffers)

    def pread(self, t: Task | None, buffers: ReadBuffers, offset: int, flags: int = 0) -> int:
        return self.host.preadv(self._fd, buffers, offset, flags)

    def pwrite(self, t: Task | None, buffers: WriteBuffers, offset: int, flags: int = 0) -> int:
        if t is not None and t.group.rlimits[RLIMIT_FSIZE][0] != RLIM_INFINITY:
            buffers = within_size_limit(t, buffers, offset)
        return self.host.pwritev(self._fd, buffers, offset, flags)

    def seek(self, offset: int, whence: int) -> int:
        return self.host.lseek(self._fd, offset, whence)

    def position(self) -> int:
        return self.host.lseek(self._fd, 0, 1)

    def set_flags(self, flags: int) -> None:
        if (flags ^ self.flags) & (O.APPEND | O.DIRECT | O.NOATIME):
            self.host.set_status_flags(self._fd, flags & (O.APPEND | O.DIRECT | O.NOATIME) | O.NONBLOCK)
        self.flags = flags

    def truncate(self, length: int) -> None:
        if not self.writable:
            raise LinuxError(E.EINVAL)
        self.host.ftruncate(self._fd, length)

    def in_memory(self) -> bool:
        """Is it on a file system that is memory (tmpfs, memfd, hugetlbfs, ramfs)?"""
        return int.from_bytes(self.host.statfs(self._fd)[:8], "little") in _MEMORY_MAGIC

    def mmap_frames(self, arena: Arena, offset: int, n_pages: int, *, shared: bool, writable: bool) -> Frames:
        if offset + n_pages * PAGE_SIZE > MAX_BYTES:
            raise LinuxError(E.EOVERFLOW)
        return self.host.call(arena.map_file, self._fd, offset, n_pages, shared, writable)


class HostDirectoryDescription(NoData, HostFile):
    """A directory of the host."""

    __slots__ = ("_directory", "_mounts_listed")

    kind = "directory"

    def __init__(self, walker: Walker, fd: int, flags: int) -> None:
        super().__init__(walker, fd, flags)
        self._directory: HostDirectory | None = HostDirectory(walker.host, fd)
        self._mounts_listed = False

    def close(self) -> None:
        self._fd = -1
        self._directory = None  # closes the descriptor, unless a walk or a working directory still holds it

    def directory_position(self) -> HostDirectory | Node | None:
        return self._directory

    def seek(self, offset: int, whence: int) -> int:
        self._mounts_listed = False
        return self.host.lseek(self._fd, offset, whence)

    def position(self) -> int:
        return self.host.lseek(self._fd, 0, 1)

    def getdents(self, t: Task, size: int) -> bytes:
        found = self.host.getdents64(self._fd, min(size, 1 << 20))
        if found or not self.walker.root_path or self._mounts_listed:
            return found
        self._mounts_listed = True
        return self._mount_points()

    def _mount_points(self) -> bytes:
        """What a root of its own need not have and the guest finds there all the same: /proc, /dev."""
        names = self.walker.mounts.get(self.walker.guest_path(self._fd), {})
        records = b""
        for name in sorted(names):
            try:
                self.host.stat(name, self._fd, False)
            except LinuxError:
                records += pack_dirent(crc32(name) | 1 << 32, (1 << 62) + len(records), DT_UNKNOWN, name)
        return records


class PathDescription(HostFile):
    """O_PATH: names a place, and nothing can be read or written through it."""

    __slots__ = ("_directory",)

    kind = "path"

    def __init__(self, walker: Walker, fd: int, flags: int) -> None:
        super().__init__(walker, fd, flags & (O.PATH | O.DIRECTORY | O.NOFOLLOW))
        directory = stat.S_ISDIR(walker.host.fstat(fd).st_mode)
        self._directory = HostDirectory(walker.host, fd) if directory else None

    def close(self) -> None:
        if self._directory is None:
            super().close()
        self._fd = -1
        self._directory = None

    def directory_position(self) -> HostDirectory | Node | None:
        return self._directory
