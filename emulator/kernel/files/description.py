"""The open file description: what descriptors refer to.

Rule: a description knows no descriptor numbers, and guest pointers in `read_one` and `write_one` only: data comes and
goes as buffers, failures are `LinuxError`, and what would sleep raises `Block`.  It is reference-counted: `retain` for
every descriptor (or mapping, or message in flight), `release` closes it with the last.
Sources: man 2 open ("open file description"), include/linux/fs.h (struct file_operations).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.memory import PAGE_SIZE, Access
from emulator.errors import LinuxError
from emulator.kernel.user_memory import user_buffers
from emulator.kernel.waits import Block, HostPoll, Wait, WaitQueue

if TYPE_CHECKING:
    from emulator.cpu.mmu import Arena, Frames
    from emulator.kernel.files.virtual import Node
    from emulator.kernel.host import Host
    from emulator.kernel.host_handles import HostDirectory
    from emulator.kernel.tasks import Task

POLLIN, POLLPRI, POLLOUT, POLLERR, POLLHUP, POLLNVAL = 1, 2, 4, 8, 16, 32
POLLRDNORM, POLLRDBAND, POLLWRNORM, POLLWRBAND, POLLRDHUP = 0x40, 0x80, 0x100, 0x200, 0x2000

_READ, _WRITE = Access.READ, Access.WRITE  # module globals: this is a hot path
STREAM_CHUNK = 1 << 20  # how much memory a read from a stream is given at once

WriteBuffers: TypeAlias = Sequence[bytes | bytearray | memoryview]
ReadBuffers: TypeAlias = Sequence[memoryview | bytearray]


class Stat(Protocol):
    """What stat(2) tells; os.stat_result has this shape."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_ino(self) -> int: ...
    @property
    def st_dev(self) -> int: ...
    @property
    def st_nlink(self) -> int: ...
    @property
    def st_uid(self) -> int: ...
    @property
    def st_gid(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_blksize(self) -> int: ...
    @property
    def st_blocks(self) -> int: ...
    @property
    def st_rdev(self) -> int: ...
    @property
    def st_atime_ns(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...


@dataclass(frozen=True, slots=True)
class VirtualStat:
    """The status of a file that only the emulator has."""

    st_mode: int
    st_ino: int
    st_dev: int = 0x17
    st_nlink: int = 1
    st_uid: int = 0
    st_gid: int = 0
    st_size: int = 0
    st_blksize: int = 4096
    st_blocks: int = 0
    st_rdev: int = 0
    st_atime_ns: int = 0
    st_mtime_ns: int = 0
    st_ctime_ns: int = 0


def total(buffers: Sequence[bytes | bytearray | memoryview]) -> int:
    """Bytes in a buffer list."""
    return len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))


def scatter(buffers: ReadBuffers, data: bytes | bytearray | memoryview) -> int:
    """Copy data into the buffers, as much as fits; returns how much did."""
    if len(buffers) == 1 and len(data) <= len(buffers[0]):
        buffers[0][: len(data)] = data
        return len(data)
    done = 0
    view = memoryview(data)
    for buffer in buffers:
        part = view[done : done + len(buffer)]
        buffer[: len(part)] = part
        done += len(part)
        if done == len(data):
            break
    return done


def gather(buffers: WriteBuffers, limit: int | None = None, skip: int = 0) -> bytes:
    """Join the buffers, without their first `skip` bytes, at most `limit` bytes."""
    if limit is not None and len(buffers) > 1:  # a vector may name gigabytes
        buffers = _first(buffers, skip + limit)
    whole = bytes(buffers[0]) if len(buffers) == 1 else b"".join(buffers)
    return whole[skip:] if limit is None else whole[skip : skip + limit]


def _first(buffers: WriteBuffers, count: int) -> WriteBuffers:
    """The buffers that hold the first `count` bytes, one at least."""
    for number, buffer in enumerate(buffers, 1):
        count -= len(buffer)
        if count <= 0:
            return buffers[:number]
    return buffers


def whole_pages(buffers: list[memoryview], size: int) -> list[memoryview]:
    """Of data that turned bad half way, the pages that are good (pipe_write)."""
    good = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
    if good == size:
        return buffers
    if good < PAGE_SIZE:
        raise LinuxError(E.EFAULT)
    return [memoryview(b"".join(buffers))[: good // PAGE_SIZE * PAGE_SIZE]]


class Description:
    """An open file description; the defaults are those of a file that can do nothing."""

    __slots__ = (
        "async_owner",
        "async_signal",
        "flags",
        "host",
        "on_release",
        "path",
        "path_only",
        "references",
        "waiters",
    )

    kind = "anon_inode"  # for messages and /proc/PID/fd
    splices_from = splices_to = False  # splice(2) moves from it, to it, if it can be read, written
    seekable = False
    whole_pages = False  # write(2) takes nothing of a page that turns bad half way (pipes)
    pollable = True  # False: epoll_ctl(2) refuses it with EPERM (regular files, directories)

    def __init__(self, host: Host, flags: int, path: bytes = b"") -> None:
        """`flags` are the O_* of `abi.fcntl.O`; `path` is the guest's name for it, for people and /proc."""
        self.host = host
        self.flags = flags & ~O.CLOEXEC
        self.path = path
        self.path_only = bool(flags & O.PATH)  # nothing can be read, written or controlled through it
        self.references = 0
        self.waiters = WaitQueue()
        self.on_release: list[Callable[[], None]] = []  # run once, before `close`
        self.async_owner = 0  # F_SETOWN
        self.async_signal = 0  # F_SETSIG

    # -- lifetime ------------------------------------------------------------------------------------------------

    def retain(self) -> Description:
        """One more user."""
        self.references += 1
        return self

    def release(self) -> None:
        """One user less; the last one closes."""
        self.references -= 1
        if self.references <= 0:
            for callback in self.on_release:
                callback()
            self.on_release.clear()
            self.close()

    def close(self) -> None:
        """Called once, when nobody uses the description any more."""

    def descriptor_closed(self, owner: object) -> None:
        """A descriptor of the table `owner` went away (f_op->flush): POSIX locks end here."""

    # -- abilities -----------------------------------------------------------------------------------------------

    @property
    def nonblocking(self) -> bool:
        """O_NONBLOCK."""
        return bool(self.flags & O.NONBLOCK)

    @property
    def readable(self) -> bool:
        """Opened for reading."""
        return self.flags & O.ACCMODE in (O.RDONLY, O.RDWR)

    @property
    def writable(self) -> bool:
        """Opened for writing."""
        return self.flags & O.ACCMODE in (O.WRONLY, O.RDWR)

    def host_fd(self) -> int | None:
        """The host descriptor behind it, if there is exactly one (for fsync, fchmod, xattrs, mmap ...)."""
        return None

    def need_host_fd(self, otherwise: E = E.EINVAL) -> int:
        """The host descriptor, or fail."""
        fd = self.host_fd()
        if fd is None:
            raise LinuxError(otherwise)
        return fd

    # -- data ----------------------------------------------------------------------------------------------------

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        """read(2) into the buffers."""
        raise LinuxError(E.EINVAL)

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        """write(2) from the buffers."""
        raise LinuxError(E.EINVAL)

    def read_one(self, t: Task, address: int, count: int) -> int | Wait:
        """read(2) into one buffer of the guest."""
        limit = count if self.seekable or count < STREAM_CHUNK else STREAM_CHUNK
        return self.read(t, user_buffers(t, address, limit, _WRITE))

    def write_one(self, t: Task, address: int, count: int) -> int | Wait:
        """write(2) from one buffer of the guest."""
        return self.write(t, user_buffers(t, address, count, _READ))

    def pread(self, t: Task | None, buffers: ReadBuffers, offset: int, flags: int = 0) -> int:
        """preadv2(2); `t` is None when the debugger reads."""
        raise LinuxError(E.ESPIPE)

    def pwrite(self, t: Task | None, buffers: WriteBuffers, offset: int, flags: int = 0) -> int:
        """pwritev2(2)."""
        raise LinuxError(E.ESPIPE)

    def seek(self, offset: int, whence: int) -> int:
        """lseek(2)."""
        raise LinuxError(E.ESPIPE)

    def getdents(self, t: Task, size: int) -> bytes:
        """Next directory records as struct linux_dirent64, no more than `size` bytes of them."""
        raise LinuxError(E.ENOTDIR)

    # -- control -------------------------------------------------------------------------------------------------

    def stat(self) -> Stat:
        """fstat(2)."""
        return VirtualStat(st_mode=0o600, st_ino=id(self) & 0xFFFFFFFF)

    def ioctl(self, t: Task, request: int, argument: int) -> int:
        """ioctl(2) beyond what every description has."""
        raise LinuxError(E.ENOTTY)

    def set_flags(self, flags: int) -> None:
        """F_SETFL: `flags` is the whole new set of status flags."""
        self.flags = flags

    def truncate(self, length: int) -> None:
        """ftruncate(2)."""
        raise LinuxError(E.EINVAL)

    def sync(self, data_only: bool) -> None:
        """fsync(2), fdatasync(2)."""
        raise LinuxError(E.EINVAL)

    def fdinfo(self) -> str:
        """Lines of /proc/PID/fdinfo/FD beyond pos, flags, mnt_id and ino."""
        return ""

    def position(self) -> int:
        """The file offset, for /proc/PID/fdinfo."""
        return 0

    def readlink_text(self) -> bytes:
        """What /proc/PID/fd/N points to."""
        return self.path or b"anon_inode:[%s]" % self.kind.encode()

    # -- names ---------------------------------------------------------------------------------------------------

    def directory_position(self) -> HostDirectory | Node | None:
        """Where a walk that starts at this description begins: a host directory, a node, or None: no directory."""
        return None

    def reopen(self, t: Task, flags: int) -> Description:
        """open(2) of /proc/PID/fd/N: a new description of the same file; ENXIO as for sockets."""
        raise LinuxError(E.ENXIO)

    # -- mapping (kernel.vma.MappableFile) -----------------------------------------------------------------------

    def mmap_frames(self, arena: Arena, offset: int, n_pages: int, *, shared: bool, writable: bool) -> Frames:
        """Frames that hold the file's pages; ENODEV where mmap(2) says so."""
        raise LinuxError(E.ENODEV)

    def mmap_size(self) -> int:
        """Bytes of the file now; pages past them give SIGBUS."""
        return self.stat().st_size

    def mmap_identity(self) -> tuple[int, int]:
        """st_dev and st_ino, for /proc/PID/maps."""
        status = self.stat()
        return status.st_dev, status.st_ino

    def mmap_path(self) -> str:
        """The name in /proc/PID/maps."""
        return self.readlink_text().decode(errors="surrogateescape")

    # -- readiness -----------------------------------------------------------------------------------------------

    def poll(self, events: int) -> int:
        """poll(2): which of `events` hold now; POLLERR, POLLHUP and POLLNVAL unasked."""
        return events & (POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM)

    def host_poll(self) -> HostPoll | None:
        """The host descriptor whose events change the answer of `poll`, if one does."""
        return None

    def block(self, what: str, events: int, deadline_ns: int | None = None, partial: int = 0) -> Block:
        """The `Block` to raise when the operation has to wait for `events`; `partial` bytes are already done."""
        host = self.host_poll()
        polls = () if host is None else (HostPoll(host.fd, events),)
        return Block(Wait(what, (self.waiters,), polls, deadline_ns, partial=partial))


class NoData:
    """The data side of a directory, whatever holds it: it can be sought in, not read or written."""

    __slots__ = ()

    seekable = True
    pollable = False

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        """EISDIR."""
        raise LinuxError(E.EISDIR)

    def pread(self, t: Task | None, buffers: ReadBuffers, offset: int, flags: int = 0) -> int:
        """EISDIR."""
        raise LinuxError(E.EISDIR)

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        """EBADF: it cannot be open for writing."""
        raise LinuxError(E.EBADF)

    def pwrite(self, t: Task | None, buffers: WriteBuffers, offset: int, flags: int = 0) -> int:
        """EBADF."""
        raise LinuxError(E.EBADF)
