"""open(2) and what is done to whole files: truncate, allocate, sync, copy between descriptors.

Sources: man 2 open, openat2, truncate, fallocate, fsync, sendfile, splice, tee, vmsplice, copy_file_range.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence

from emulator.abi.errno import E
from emulator.abi.fcntl import AT, O, Resolve
from emulator.abi.memory import PAGE_SIZE, Access
from emulator.errors import LinuxError
from emulator.kernel.files.description import POLLIN, POLLOUT, Description
from emulator.kernel.files.pipe import PipeEnd, broken_pipe
from emulator.kernel.files.regular import (
    HostFile,
    RegularFile,
    check_new_size,
    hit_size_limit,
    room_for_write,
    tell_shrunk,
)
from emulator.kernel.files.tty import HostTty, PtyMaster, take_terminal
from emulator.kernel.files.virtual import VirtualDirectory, VirtualFileDescription
from emulator.kernel.paths import VirtualPlace
from emulator.kernel.tasks import Task
from emulator.kernel.waits import Block, Wait
from emulator.syscalls.io import MAX_RW_COUNT, for_reading, for_writing, readv, vector_buffers
from emulator.syscalls.openflags import from_guest
from emulator.syscalls.registry import Fd, Int, Long, Ptr, Size, UInt, syscall

CHUNK = 1 << 18
FALLOC_FL_KEEP_SIZE = 1
LARGE_ALLOCATION = 64 << 20
SPLICE_F_NONBLOCK, SPLICE_KNOWN = 2, 15
_KNOWN_OPEN = 0o37777703


def path_at(t: Task, address: int) -> bytes:
    """A path argument: EFAULT, ENAMETOOLONG."""
    return t.memory.read_cstring(address, 4096)


def open_file(t: Task, dirfd: int, pathname: int, flags: int, mode: int, restrictions: int = 0) -> int:
    """do_sys_open."""
    wanted = from_guest(t.arch, flags) & _KNOWN_OPEN
    if t.arch.bits == 64 and not wanted & O.PATH:
        wanted |= O.LARGEFILE
    if wanted & O.TMPFILE & ~O.DIRECTORY and (
        wanted & O.TMPFILE != O.TMPFILE or wanted & O.ACCMODE == O.RDONLY or wanted & O.CREAT
    ):
        raise LinuxError(E.EINVAL)
    path = path_at(t, pathname)
    description = t.kernel.vfs.open(t, path, wanted, mode, dirfd, restrictions)
    if not wanted & O.NOCTTY and isinstance(description, HostTty):
        acquire_terminal(t, description)
    return t.fds.allocate(description, cloexec=bool(wanted & O.CLOEXEC))


def acquire_terminal(t: Task, terminal: HostTty) -> None:
    """A session leader without a terminal gets the one it opens (man 2 open, O_NOCTTY)."""
    session = t.group.session
    if session.tty is not None or session.sid != t.group.tgid:
        return
    if not isinstance(terminal, PtyMaster):
        take_terminal(t, terminal)


@syscall("open")
def open_(t: Task, pathname: Ptr, flags: UInt, mode: UInt) -> int:
    """open(2)."""
    return open_file(t, AT.FDCWD, pathname, flags, mode)


@syscall("openat")
def openat(t: Task, dirfd: Fd, pathname: Ptr, flags: UInt, mode: UInt) -> int:
    """openat(2)."""
    return open_file(t, dirfd, pathname, flags, mode)


@syscall("creat")
def creat(t: Task, pathname: Ptr, mode: UInt) -> int:
    """creat(2)."""
    return open_file(t, AT.FDCWD, pathname, O.CREAT | O.WRONLY | O.TRUNC, mode)


@syscall("openat2")
def openat2(t: Task, dirfd: Fd, pathname: Ptr, how: Ptr, size: Size) -> int:
    """openat2(2).  RESOLVE_CACHED: an existing file counts as cached."""
    if size < 24:
        raise LinuxError(E.EINVAL)
    if size > PAGE_SIZE:
        raise LinuxError(E.E2BIG)
    flags, mode, resolve = t.memory.read_struct(how, "QQQ")
    if size > 24 and any(t.memory.read(how + 24, size - 24)):
        raise LinuxError(E.E2BIG)
    if resolve & ~0x3F or mode & ~0o7777:
        raise LinuxError(E.EINVAL)
    if resolve & Resolve.BENEATH and resolve & Resolve.IN_ROOT:
        raise LinuxError(E.EINVAL)
    generic = from_guest(t.arch, flags & 0xFFFFFFFF)
    if flags >> 32 or generic & ~_KNOWN_OPEN or (mode and not generic & (O.CREAT | O.TMPFILE & ~O.DIRECTORY)):
        raise LinuxError(E.EINVAL)
    if generic & O.PATH and generic & ~(O.PATH | O.DIRECTORY | O.NOFOLLOW | O.CLOEXEC):
        raise LinuxError(E.EINVAL)
    if resolve & Resolve.CACHED and generic & (O.TRUNC | O.CREAT | O.TMPFILE & ~O.DIRECTORY):
        raise LinuxError(E.EAGAIN)
    return open_file(t, dirfd, pathname, flags, mode, resolve)


# -- size and storage ------------------------------------------------------------------------------------------------


@syscall("truncate")
def truncate(t: Task, pathname: Ptr, length: Long) -> None:
    """truncate(2)."""
    if length < 0:
        raise LinuxError(E.EINVAL)
    path = path_at(t, pathname)
    place = t.kernel.vfs.walker.resolve(t, AT.FDCWD, path)
    if isinstance(place, VirtualPlace) and not isinstance(place.existing(), VirtualDirectory):
        return  # as root may, and nothing comes of it
    pin = t.kernel.vfs.pinned(t, path)
    status = t.kernel.host.stat(pin.path)
    t.kernel.vfs.leases.break_for(t, (status.st_dev, status.st_ino), write=True, nonblocking=False)
    check_new_size(t, status.st_size, length)
    t.kernel.host.truncate(pin.path, length)
    if length < status.st_size:
        tell_shrunk(t, (status.st_dev, status.st_ino), length)


@syscall("ftruncate")
def ftruncate(t: Task, fd: Fd, length: Long) -> None:
    """ftruncate(2)."""
    if length < 0:
        raise LinuxError(E.EINVAL)
    description = t.fds.get(fd)
    if not isinstance(description, RegularFile) or not description.writable:
        description.truncate(length)
        return
    status = description.stat()
    check_new_size(t, status.st_size, length)
    description.truncate(length)
    if length < status.st_size:
        tell_shrunk(t, (status.st_dev, status.st_ino), length)


@syscall("fallocate")
def fallocate(t: Task, fd: Fd, mode: Int, offset: Long, length: Long) -> None:
    """fallocate(2)."""
    description = t.fds.get(fd)
    if offset < 0 or length <= 0:
        raise LinuxError(E.EINVAL)
    if not description.writable:
        raise LinuxError(E.EBADF)
    if isinstance(description, RegularFile):
        if length > LARGE_ALLOCATION and description.in_memory() and length > t.kernel.host.available_memory():
            raise LinuxError(E.ENOSPC)  # the host would be out of memory, and take the emulator with it
        if not mode & FALLOC_FL_KEEP_SIZE:
            check_new_size(t, description.stat().st_size, offset + length)
        t.kernel.host.fallocate(description.need_host_fd(), mode, offset, length)
        return
    raise LinuxError(E.ESPIPE if stat.S_ISFIFO(description.stat().st_mode) else E.ENODEV)


@syscall("fsync")
def fsync(t: Task, fd: Fd) -> None:
    """fsync(2)."""
    t.fds.get(fd).sync(False)


@syscall("fdatasync")
def fdatasync(t: Task, fd: Fd) -> None:
    """fdatasync(2)."""
    t.fds.get(fd).sync(True)


@syscall("sync")
def sync(t: Task) -> None:
    """sync(2)."""
    t.kernel.host.sync()


@syscall("syncfs")
def syncfs(t: Task, fd: Fd) -> None:
    """syncfs(2)."""
    if isinstance(t.fds.get(fd), HostFile):
        t.kernel.host.sync()


@syscall("sync_file_range")
def sync_file_range(t: Task, fd: Fd, offset: Long, nbytes: Long, flags: UInt) -> None:
    """sync_file_range(2)."""
    description = t.fds.get(fd)
    if flags & ~7 or offset < 0 or nbytes < 0:
        raise LinuxError(E.EINVAL)
    if not isinstance(description, HostFile) or description.pollable:
        raise LinuxError(E.ESPIPE)
    t.kernel.host.sync_file_range(description.need_host_fd(), offset, nbytes, flags)


@syscall("fadvise64", "fadvise64_64")
def fadvise64(t: Task, fd: Fd, offset: Long, length: Long, advice: Int) -> None:
    """posix_fadvise(2)."""
    description = t.fds.get(fd)
    if stat.S_ISFIFO(description.stat().st_mode):
        raise LinuxError(E.ESPIPE)
    if length < 0 or not 0 <= advice <= 5:
        raise LinuxError(E.EINVAL)
    if isinstance(description, RegularFile):
        t.kernel.host.fadvise(description.need_host_fd(), offset, length, advice)


@syscall("readahead")
def readahead(t: Task, fd: Fd, offset: Long, count: Size) -> None:
    """readahead(2): the host's page cache needs no help."""
    if not isinstance(for_reading(t, fd), RegularFile):
        raise LinuxError(E.EINVAL)


# -- between descriptors ---------------------------------------------------------------------------------------------


def write_now(t: Task, target: Description, data: bytes | memoryview) -> int:
    """Write what goes in without waiting; EAGAIN if nothing does."""
    flags, memo = target.flags, t.call.memo
    target.flags = flags | O.NONBLOCK
    t.call.memo = None
    try:
        return target.write(t, [data])
    finally:
        target.flags, t.call.memo = flags, memo


def read_now(t: Task, source: Description, count: int) -> bytes:
    """Read what is there without waiting; EAGAIN if nothing is."""
    buffer = bytearray(count)
    flags, memo = source.flags, t.call.memo
    source.flags = flags | O.NONBLOCK
    t.call.memo = None
    try:
        return bytes(buffer[: source.read(t, [memoryview(buffer)])])
    finally:
        source.flags, t.call.memo = flags, memo


@syscall("sendfile", "sendfile64")
def sendfile(t: Task, out_fd: Fd, in_fd: Fd, offset: Ptr, count: Size) -> int:
    """sendfile(2)."""
    source = for_reading(t, in_fd)
    position = t.memory.read_s64(offset) if offset else None
    target = for_writing(t, out_fd)
    if not isinstance(source, RegularFile | VirtualFileDescription):
        raise LinuxError(E.EINVAL)
    if position is not None and position < 0:
        raise LinuxError(E.EINVAL)
    if target.flags & O.APPEND:
        raise LinuxError(E.EINVAL)
    at = source.position() if position is None else position
    done, wanted = 0, min(count, MAX_RW_COUNT)
    buffer = memoryview(bytearray(min(wanted, CHUNK)))
    while done < wanted:
        got = source.pread(t, [buffer[: wanted - done]], at + done)
        if not got:
            break
        try:
            sent = write_now(t, target, buffer[:got])
        except LinuxError as error:
            if done:
                break
            if error.errno is E.EAGAIN and not target.nonblocking:
                raise target.block("sendfile", POLLOUT) from None
            raise
        done += sent
        if sent < got and isinstance(target, RegularFile):
            hit_size_limit(t)
        if sent < got or not isinstance(target, RegularFile):
            break
    if position is None:
        source.seek(at + done, 0)
    else:
        t.memory.write_u64(offset, at + done)
    return done


@syscall("copy_file_range")
def copy_file_range(t: Task, fd_in: Fd, off_in: Ptr, fd_out: Fd, off_out: Ptr, length: Size, flags: UInt) -> int:
    """copy_file_range(2)."""
    source, target = t.fds.get(fd_in), t.fds.get(fd_out)
    at = t.memory.read_s64(off_in) if off_in else None
    to = t.memory.read_s64(off_out) if off_out else None
    if flags:
        raise LinuxError(E.EINVAL)
    if any(stat.S_ISDIR(description.stat().st_mode) for description in (source, target)):
        raise LinuxError(E.EISDIR)
    if not isinstance(source, RegularFile) or not isinstance(target, RegularFile):
        raise LinuxError(E.EINVAL)
    if not source.readable or not target.writable or target.flags & O.APPEND:
        raise LinuxError(E.EBADF)
    length = room_for_write(t, target.position() if to is None else to, min(length, MAX_RW_COUNT))
    done = t.kernel.host.copy_file_range(source.need_host_fd(), target.need_host_fd(), length, at, to)
    if at is not None:
        t.memory.write_u64(off_in, at + done)
    if to is not None:
        t.memory.write_u64(off_out, to + done)
    return done


@syscall("splice")
def splice(t: Task, fd_in: Fd, off_in: Ptr, fd_out: Fd, off_out: Ptr, length: Size, flags: UInt) -> int:
    """splice(2): one end at least is a pipe."""
    if flags & ~SPLICE_KNOWN:
        raise LinuxError(E.EINVAL)
    if not length:
        return 0
    source, target = for_reading(t, fd_in), for_writing(t, fd_out)
    in_pipe, out_pipe = _is_pipe(source), _is_pipe(target)
    if (in_pipe and off_in) or (out_pipe and off_out):
        raise LinuxError(E.ESPIPE)
    if not in_pipe and not out_pipe:
        raise LinuxError(E.EINVAL)
    if isinstance(source, PipeEnd) and isinstance(target, PipeEnd) and source.pipe is target.pipe:
        raise LinuxError(E.EINVAL)
    if target.flags & O.APPEND or not source.splices_from or not target.splices_to:
        raise LinuxError(E.EINVAL)
    waiting = not flags & SPLICE_F_NONBLOCK
    count = min(length, 1 << 20)
    if isinstance(target, PipeEnd):
        if not target.pipe.readers:
            raise broken_pipe(t)
        count = min(count, target.pipe.free)
        if not count:
            if not waiting or target.nonblocking:
                raise LinuxError(E.EAGAIN)
            raise Block(Wait("splice", (target.pipe.room,)))
    position = t.memory.read_s64(off_in) if off_in else None
    goal = t.memory.read_s64(off_out) if off_out else None
    data, consume = _splice_from(t, source, count, position, waiting=waiting)
    if not data:
        return 0
    if goal is not None:
        done = target.pwrite(t, [data], goal)
        t.memory.write_u64(off_out, goal + done)
    else:
        try:
            done = write_now(t, target, data)
        except LinuxError as error:
            if error.errno is E.EAGAIN and waiting and not target.nonblocking:
                raise target.block("splice", POLLOUT) from None
            raise
    if done < len(data) and isinstance(target, RegularFile):
        hit_size_limit(t)
    if consume is not None:
        consume.pipe.take(done)
    elif position is not None:
        t.memory.write_u64(off_in, position + done)
    elif source.seekable:
        source.seek(done, 1)
    return done


def _is_pipe(description: Description) -> bool:
    return isinstance(description, PipeEnd) or stat.S_ISFIFO(description.stat().st_mode)


def _splice_from(
    t: Task, source: Description, count: int, position: int | None, *, waiting: bool
) -> tuple[bytes, PipeEnd | None]:
    """Look at (pipes, files) or take (streams) the next bytes."""
    if isinstance(source, PipeEnd):
        if not source.pipe.data and source.pipe.writers:
            if not waiting or source.nonblocking:
                raise LinuxError(E.EAGAIN)
            raise Block(Wait("splice", (source.pipe.waiting,)))
        return bytes(source.pipe.data[:count]), source
    if source.seekable:
        buffer = bytearray(count)
        at = source.position() if position is None else position
        return bytes(buffer[: source.pread(t, [memoryview(buffer)], at)]), None
    try:
        return read_now(t, source, count), None
    except LinuxError as error:
        if error.errno is E.EAGAIN and waiting and not source.nonblocking:
            raise source.block("splice", POLLIN) from None
        raise


@syscall("tee")
def tee(t: Task, fd_in: Fd, fd_out: Fd, length: Size, flags: UInt) -> int:
    """tee(2)."""
    if flags & ~SPLICE_KNOWN:
        raise LinuxError(E.EINVAL)
    if not length:
        return 0
    source, target = for_reading(t, fd_in), for_writing(t, fd_out)
    if not isinstance(source, PipeEnd) or not isinstance(target, PipeEnd) or source.pipe is target.pipe:
        raise LinuxError(E.EINVAL)
    waiting = not flags & SPLICE_F_NONBLOCK
    if not source.pipe.data:
        if not source.pipe.writers:
            return 0
        if not waiting or source.nonblocking:
            raise LinuxError(E.EAGAIN)
        raise Block(Wait("tee", (source.pipe.waiting,)))
    if not target.pipe.readers:
        raise broken_pipe(t)
    count = min(length, len(source.pipe.data), target.pipe.free)
    if not count:
        if not waiting or target.nonblocking:
            raise LinuxError(E.EAGAIN)
        raise Block(Wait("tee", (target.pipe.room,)))
    return target.pipe.put(bytes(source.pipe.data[:count]))


def _page_room(pieces: Sequence[tuple[int, int]], slots: int) -> int:
    """How many bytes of guest memory go into so many pages: each is taken where it lies (iter_to_pipe)."""
    count = 0
    for base, length in pieces:
        end = base + length
        while base < end and slots:
            step = min(PAGE_SIZE - base % PAGE_SIZE, end - base)
            count, base, slots = count + step, base + step, slots - 1
    return count


@syscall("vmsplice")
def vmsplice(t: Task, fd: Fd, iov: Ptr, nr_segs: Size, flags: UInt) -> int:
    """vmsplice(2): the pages are copied, which nobody can tell who keeps the rules."""
    if flags & ~SPLICE_KNOWN:
        raise LinuxError(E.EINVAL)
    description = t.fds.get(fd)
    if not isinstance(description, PipeEnd):
        raise LinuxError(E.EBADF)
    if description.writable:
        data = b"".join(vector_buffers(t, iov, nr_segs, Access.READ))
        if data and not description.pipe.readers:
            raise broken_pipe(t)
        room = _page_room(t.memory.read_iovec(iov, nr_segs), description.pipe.free // PAGE_SIZE)
        if data and not room:
            if flags & SPLICE_F_NONBLOCK:
                raise LinuxError(E.EAGAIN)
            raise Block(Wait("vmsplice", (description.pipe.room,)))
        return description.pipe.put(data[:room])  # what goes in: it waits for the first page only
    return readv(t, fd, iov, nr_segs)
