"""Files that only the emulator has: the nodes of /proc and of some names in /dev.

Rule: a node is made when a path is walked and holds no state of its own; what it shows is asked for when it is read.
Sources: man 5 proc; fs/proc/.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING
from zlib import crc32

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.errors import LinuxError
from emulator.kernel.credentials import CAP_DAC_OVERRIDE
from emulator.kernel.files.description import (
    Description,
    NoData,
    ReadBuffers,
    VirtualStat,
    WriteBuffers,
    gather,
    scatter,
)

if TYPE_CHECKING:
    from emulator.kernel.host import Host
    from emulator.kernel.host_handles import HostDirectory
    from emulator.kernel.tasks import Task

DT_FIFO, DT_CHR, DT_DIR, DT_BLK, DT_REG, DT_LNK, DT_SOCK = 1, 2, 4, 6, 8, 10, 12


class Node:
    """An inode of the emulator's own."""

    __slots__ = ("gid", "mode", "name", "parent", "uid")

    def __init__(self, name: bytes, mode: int, parent: Node | None, uid: int = 0, gid: int = 0) -> None:
        self.name = name
        self.mode = mode
        self.parent = parent
        self.uid = uid
        self.gid = gid

    def path(self) -> bytes:
        """Absolute guest path; the outermost node's name is absolute ("/proc")."""
        return self.name if self.parent is None else self.parent.path() + b"/" + self.name

    def inode(self) -> int:
        """A number that stays the same for the same path."""
        return crc32(self.path()) | 1 << 32

    def stat(self, t: Task) -> VirtualStat:
        """stat(2)."""
        now = t.kernel.clock.realtime_ns()
        return VirtualStat(
            self.mode,
            self.inode(),
            st_uid=self.uid,
            st_gid=self.gid,
            st_nlink=2 if stat.S_ISDIR(self.mode) else 1,
            st_size=self.size(t),
            st_blksize=1024,
            st_atime_ns=now,
            st_mtime_ns=now,
            st_ctime_ns=now,
        )

    def size(self, t: Task) -> int:
        """st_size: 0 for most of /proc."""
        return 0

    def open(self, t: Task, flags: int) -> Description:
        """open(2)."""
        raise LinuxError(E.EACCES)


class VirtualDirectory(Node):
    """A directory: subclasses give `lookup` and `entries`."""

    __slots__ = ()

    def lookup(self, t: Task, name: bytes) -> Node | None:
        """The child, or None."""
        raise NotImplementedError

    def entries(self, t: Task) -> Iterable[tuple[bytes, int]]:
        """Names and DT_* kinds, without . and .."""
        raise NotImplementedError

    def open(self, t: Task, flags: int) -> Description:
        """Directories open for reading only."""
        if flags & O.ACCMODE != O.RDONLY or flags & O.CREAT:
            raise LinuxError(E.EISDIR)
        return VirtualDirectoryDescription(t.kernel.host, flags, self)


class VirtualFile(Node):
    """A file with text made when it is opened: subclasses give `content`, and `store` if it can be written."""

    __slots__ = ()

    overridable = True  # by CAP_DAC_OVERRIDE
    splices = False  # seq_file has no splice_read

    def content(self, t: Task) -> bytes:
        """All of it."""
        raise LinuxError(E.EIO)

    def store(self, t: Task, data: bytes) -> None:
        """One write(2)."""
        raise LinuxError(E.EINVAL)

    def open(self, t: Task, flags: int) -> Description:
        """A snapshot for reading, a sink for writing."""
        if flags & O.DIRECTORY:
            raise LinuxError(E.ENOTDIR)
        if not self.overridable or not t.credentials.capable(CAP_DAC_OVERRIDE):
            wanted = {O.RDONLY: 0o444, O.WRONLY: 0o222}.get(flags & O.ACCMODE, 0o666)
            shift = 0o700 if t.credentials.fsuid == self.uid else 0o007
            if self.mode & wanted & shift != wanted & shift:
                raise LinuxError(E.EACCES)
        return VirtualFileDescription(t.kernel.host, flags, self, t)


class VirtualLink(Node):
    """A symbolic link that a walk follows by its text."""

    __slots__ = ()

    def __init__(self, name: bytes, parent: Node | None, uid: int = 0, gid: int = 0) -> None:
        super().__init__(name, stat.S_IFLNK | 0o777, parent, uid, gid)

    def target(self, t: Task) -> bytes:
        """readlink(2)."""
        raise NotImplementedError

    def open(self, t: Task, flags: int) -> Description:
        """Only with O_NOFOLLOW does an open arrive here."""
        raise LinuxError(E.ELOOP)


class MagicLink(VirtualLink):
    """A link of /proc that leads to the thing itself, whatever its text says."""

    __slots__ = ()

    def jump(self, t: Task) -> Description | HostDirectory | Node:
        """Where following it lands."""
        raise NotImplementedError


class VirtualFileDescription(Description):
    """An open VirtualFile: the text as it was at the last read from offset 0."""

    __slots__ = ("_data", "_offset", "_opener", "node", "splices_from", "splices_to")

    kind = "proc"
    seekable = True
    pollable = False

    def __init__(self, host: Host, flags: int, node: VirtualFile, opener: Task) -> None:
        super().__init__(host, flags, node.path())
        self.node = node
        self.splices_from = self.splices_to = node.splices
        self._opener = opener
        self._offset = 0
        self._data: bytes | None = None

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        """From the snapshot; reading again from the start makes a new one."""
        count = self.pread(t, buffers, self._offset)
        self._offset += count
        return count

    def pread(self, t: Task | None, buffers: ReadBuffers, offset: int, flags: int = 0) -> int:
        """From the snapshot."""
        if not self.readable:
            raise LinuxError(E.EBADF)
        if self._data is None or (offset == 0 and self._offset != 0):
            self._data = self.node.content(t or self._opener)
        return scatter(buffers, memoryview(self._data)[offset:])

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        """Hand one write to the node."""
        if not self.writable:
            raise LinuxError(E.EBADF)
        data = gather(buffers)
        self.node.store(t, data)
        return len(data)

    def pwrite(self, t: Task | None, buffers: WriteBuffers, offset: int, flags: int = 0) -> int:
        """Offsets mean nothing."""
        return self.write(t or self._opener, buffers)

    def seek(self, offset: int, whence: int) -> int:
        """SEEK_SET and SEEK_CUR, as seq_lseek."""
        match whence:
            case 0:
                target = offset
            case 1:
                target = self._offset + offset
            case _:
                raise LinuxError(E.EINVAL)
        if target < 0:
            raise LinuxError(E.EINVAL)
        if target == 0:
            self._data = None
        self._offset = target
        return target

    def position(self) -> int:
        return self._offset

    def truncate(self, length: int) -> None:
        """O_TRUNC of a sysctl does nothing."""

    def stat(self) -> VirtualStat:
        return self.node.stat(self._opener)

    def readlink_text(self) -> bytes:
        return self.node.path()

    def reopen(self, t: Task, flags: int) -> Description:
        return self.node.open(t, flags)


class VirtualPathDescription(Description):
    """O_PATH of a node that is no directory: names it, and nothing more."""

    __slots__ = ("_opener", "node")

    kind = "path"

    def __init__(self, host: Host, flags: int, node: Node, opener: Task) -> None:
        super().__init__(host, flags & (O.PATH | O.DIRECTORY | O.NOFOLLOW), node.path())
        self.node = node
        self._opener = opener

    def stat(self) -> VirtualStat:
        return self.node.stat(self._opener)

    def readlink_text(self) -> bytes:
        return self.node.path()

    def reopen(self, t: Task, flags: int) -> Description:
        return self.node.open(t, flags)


def pack_dirent(inode: int, offset: int, kind: int, name: bytes) -> bytes:
    """struct linux_dirent64, 8-aligned."""
    length = (19 + len(name) + 1 + 7) & ~7
    return struct.pack("<QqHB", inode, offset, length, kind) + name.ljust(length - 19, b"\0")


class VirtualDirectoryDescription(NoData, Description):
    """An open VirtualDirectory."""

    __slots__ = ("_names", "_offset", "_opener", "node")

    kind = "procdir"

    def __init__(self, host: Host, flags: int, node: VirtualDirectory, opener: Task | None = None) -> None:
        super().__init__(host, flags, node.path())
        self.node = node
        self._offset = 0
        self._names: list[tuple[bytes, int]] | None = None
        self._opener = opener

    def directory_position(self) -> HostDirectory | Node | None:
        return self.node

    def seek(self, offset: int, whence: int) -> int:
        """To a d_off, or to the start."""
        if whence not in (0, 1) or (whence == 0 and offset < 0):
            raise LinuxError(E.EINVAL)
        self._offset = offset if whence == 0 else self._offset + offset
        if self._offset == 0:
            self._names = None
        return self._offset

    def getdents(self, t: Task, size: int) -> bytes:
        """The next records; the names are those of the first call."""
        if self._names is None:
            self._names = [(b".", DT_DIR), (b"..", DT_DIR), *self.node.entries(t)]
        records = bytearray()
        for index in range(self._offset, len(self._names)):
            name, kind = self._names[index]
            inode = crc32(self.node.path() + b"/" + name) | 1 << 32
            record = pack_dirent(inode, index + 1, kind, name)
            if len(records) + len(record) > size:
                if not records:
                    raise LinuxError(E.EINVAL)
                break
            records += record
            self._offset = index + 1
        return bytes(records)

    def position(self) -> int:
        return self._offset

    def stat_for(self, t: Task) -> VirtualStat:
        """fstat(2) needs the clock of somebody."""
        return self.node.stat(t)

    def stat(self) -> VirtualStat:
        return VirtualStat(self.node.mode, self.node.inode(), st_nlink=2, st_blksize=1024)

    def readlink_text(self) -> bytes:
        return self.node.path()

    def reopen(self, t: Task, flags: int) -> Description:
        return self.node.open(t, flags)
