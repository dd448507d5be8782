"""Calls about descriptors themselves: close, dup, fcntl, ioctl, pipe, memfd_create.

Sources: man 2 close, close_range, dup, fcntl, ioctl, pipe, memfd_create; fs/fcntl.c, fs/ioctl.c.
"""

from __future__ import annotations

import stat

from emulator.abi.errno import E
from emulator.abi.fcntl import F, O
from emulator.abi.sockets import FIOSETOWN, SIOCSPGRP
from emulator.errors import LinuxError
from emulator.kernel.files.async_io import update_async
from emulator.kernel.files.description import Description
from emulator.kernel.files.device_ioctls import device_ioctl
from emulator.kernel.files.dnotify import notes_of
from emulator.kernel.files.pipe import PipeEnd, make_pipe
from emulator.kernel.files.regular import HostDirectoryDescription, HostFile, RegularFile
from emulator.kernel.tasks import Task
from emulator.syscalls.locks import fcntl_lock, get_lease, set_lease
from emulator.syscalls.openflags import from_guest, to_guest
from emulator.syscalls.registry import Fd, Int, Ptr, Size, UInt, syscall

CLOSE_RANGE_UNSHARE, CLOSE_RANGE_CLOEXEC = 2, 4
FIOCLEX, FIONCLEX, FIONBIO, FIOASYNC, FIOQSIZE, FIGETBSZ, FIONREAD = 0x5451, 0x5450, 0x5421, 0x5452, 0x5460, 2, 0x541B
FICLONE, FICLONERANGE, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x40049409, 0x4020940D, 0x80086601, 0x40086602
FS_IOC_FSGETXATTR, FS_IOC_GETVERSION = 0x801C581F, 0x80087601
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL, MFD_EXEC = 1, 2, 8, 16
_SETTABLE = O.APPEND | O.NONBLOCK | O.ASYNC | O.DIRECT | O.NOATIME
# FS_IOC_GETFLAGS, SETFLAGS and GETVERSION say long and are int (ioctl_iflags(2)).
_INFO_SIZES = {FS_IOC_GETFLAGS: 4, FS_IOC_FSGETXATTR: 28, FS_IOC_GETVERSION: 4}


@syscall("close")
def close(t: Task, fd: Fd) -> None:
    """close(2)."""
    t.fds.close(fd)


@syscall("close_range")
def close_range(t: Task, first: UInt, last: UInt, flags: UInt) -> None:
    """close_range(2)."""
    if flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) or first > last:
        raise LinuxError(E.EINVAL)
    if flags & CLOSE_RANGE_UNSHARE and t.fds.users > 1:
        mine = t.fds.fork()
        t.fds.leave()
        t.fds = mine
    t.fds.close_range(first, last, only_cloexec=bool(flags & CLOSE_RANGE_CLOEXEC))


@syscall("dup")
def dup(t: Task, fd: Fd) -> int:
    """dup(2)."""
    return t.fds.allocate(t.fds.get_raw(fd))


@syscall("dup2")
def dup2(t: Task, old: Fd, new: Fd) -> int:
    """dup2(2)."""
    if old == new:
        t.fds.get_raw(old)
        return new
    return t.fds.dup_onto(old, new)


@syscall("dup3")
def dup3(t: Task, old: Fd, new: Fd, flags: UInt) -> int:
    """dup3(2)."""
    if flags & ~O.CLOEXEC or old == new:
        raise LinuxError(E.EINVAL)
    return t.fds.dup_onto(old, new, cloexec=bool(flags & O.CLOEXEC))


@syscall("pipe")
def pipe(t: Task, pipefd: Ptr) -> None:
    """pipe(2)."""
    pipe2(t, pipefd, 0)


@syscall("pipe2")
def pipe2(t: Task, pipefd: Ptr, flags: UInt) -> None:
    """pipe2(2)."""
    wanted = from_guest(t.arch, flags)
    if wanted & ~(O.CLOEXEC | O.NONBLOCK | O.DIRECT):
        raise LinuxError(E.EINVAL)
    reader, writer = make_pipe(t, wanted & ~O.CLOEXEC)
    first, second = t.fds.allocate_pair(reader, writer, cloexec=bool(wanted & O.CLOEXEC))
    try:
        t.memory.write_struct(pipefd, "ii", first, second)
    except LinuxError:
        t.fds.close(first)
        t.fds.close(second)
        raise


@syscall("memfd_create")
def memfd_create(t: Task, name: Ptr, flags: UInt) -> int:
    """memfd_create(2): a host memfd, so that it can be mapped shared and sealed."""
    if flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | MFD_EXEC):
        raise LinuxError(E.EINVAL)
    text = t.memory.read_cstring(name, 250, E.EINVAL)
    vfs = t.kernel.vfs
    fd = t.kernel.host.memfd(text, flags & ~MFD_CLOEXEC)
    file = RegularFile(vfs.walker, fd, O.RDWR | O.LARGEFILE, vfs.locks)
    return t.fds.allocate(file, cloexec=bool(flags & MFD_CLOEXEC))


# -- fcntl -----------------------------------------------------------------------------------------------------------

_ON_PATH_ONLY = frozenset((F.DUPFD, F.DUPFD_CLOEXEC, F.GETFD, F.SETFD, F.GETFL))
_LOCKS = frozenset((F.GETLK, F.SETLK, F.SETLKW, F.OFD_GETLK, F.OFD_SETLK, F.OFD_SETLKW, 12, 13, 14))


@syscall("fcntl", "fcntl64")
def fcntl(t: Task, fd: Fd, cmd: UInt, arg: Size) -> int:
    """fcntl(2)."""
    description = t.fds.get_raw(fd)
    if description.path_only and cmd not in _ON_PATH_ONLY:
        raise LinuxError(E.EBADF)
    value = (arg & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
    match cmd:
        case F.DUPFD:
            return t.fds.dup(fd, value)
        case F.DUPFD_CLOEXEC:
            return t.fds.dup(fd, value, cloexec=True)
        case F.GETFD:
            return int(t.fds.cloexec(fd))
        case F.SETFD:
            t.fds.set_cloexec(fd, bool(value & 1))
        case F.GETFL:
            return to_guest(t.arch, description.flags)
        case F.SETFL:
            wanted = from_guest(t.arch, arg & 0xFFFFFFFF)
            description.set_flags(description.flags & ~_SETTABLE | wanted & _SETTABLE)
            update_async(t, description, fd)
        case _ if cmd in _LOCKS:
            return fcntl_lock(t, description, cmd, arg)
        case F.SETOWN:
            description.async_owner = value
            update_async(t, description, fd)
        case F.GETOWN:
            return description.async_owner
        case F.SETOWN_EX:
            kind, pid = t.memory.read_struct(arg, "ii")
            if kind not in (0, 1, 2):
                raise LinuxError(E.EINVAL)
            description.async_owner = -pid if kind == 2 else pid
            update_async(t, description, fd)
        case F.GETOWN_EX:
            owner = description.async_owner
            t.memory.write_struct(arg, "ii", 2 if owner < 0 else 1, abs(owner))
        case F.SETSIG:
            if not 0 <= value <= 64:
                raise LinuxError(E.EINVAL)
            description.async_signal = value
        case F.GETSIG:
            return description.async_signal
        case F.GETPIPE_SZ | F.SETPIPE_SZ:
            return _pipe_size(t, description, cmd, arg & 0xFFFFFFFF)
        case F.ADD_SEALS | F.GET_SEALS:
            if not isinstance(description, RegularFile):
                raise LinuxError(E.EINVAL)
            return int(t.kernel.host.fcntl(description.need_host_fd(), cmd, value))
        case F.GETLEASE:
            return get_lease(t, description)
        case F.SETLEASE:
            set_lease(t, description, fd, value)
        case F.NOTIFY:
            if description.directory_position() is None:
                raise LinuxError(E.ENOTDIR)
            if isinstance(description, HostDirectoryDescription):
                notes_of(t.kernel).set(t, description, fd, arg & 0xFFFFFFFF)
        case F.CREATED_QUERY:
            return int(t.kernel.host.fcntl(description.need_host_fd(), cmd)) if isinstance(description, HostFile) else 0
        case F.GET_RW_HINT:
            t.memory.write_u64(arg, 0)
        case F.SET_RW_HINT:
            if t.memory.read_u64(arg) > 5:
                raise LinuxError(E.EINVAL)
        case _:
            raise LinuxError(E.EINVAL)
    return 0


def _pipe_size(t: Task, description: Description, cmd: int, size: int) -> int:
    if isinstance(description, PipeEnd):
        return description.pipe.capacity if cmd == F.GETPIPE_SZ else description.set_capacity(size)
    if isinstance(description, HostFile) and stat.S_ISFIFO(description.stat().st_mode):
        return int(t.kernel.host.fcntl(description.need_host_fd(), cmd, size))
    raise LinuxError(E.EBADF)


# -- ioctl -----------------------------------------------------------------------------------------------------------


@syscall("ioctl")
def ioctl(t: Task, fd: Fd, request: UInt, arg: Size) -> int:
    """ioctl(2): what every descriptor has, then what the description has."""
    description = t.fds.get(fd)
    match request:
        case _ if request == FIOCLEX:
            t.fds.set_cloexec(fd, True)
        case _ if request == FIONCLEX:
            t.fds.set_cloexec(fd, False)
        case _ if request == FIONBIO:
            on = t.memory.read_s32(arg) != 0
            description.set_flags(description.flags & ~O.NONBLOCK | (O.NONBLOCK if on else 0))
        case _ if request == FIOASYNC:
            on = t.memory.read_s32(arg) != 0
            description.set_flags(description.flags & ~O.ASYNC | (O.ASYNC if on else 0))
            update_async(t, description, fd)
        case _ if isinstance(description, HostFile) and not description.pollable:
            return _file_ioctl(t, description, request, arg)
        case _:
            result = description.ioctl(t, request, arg)
            if request in (FIOSETOWN, SIOCSPGRP):
                update_async(t, description, fd)
            return result
    return 0


def _file_ioctl(t: Task, file: HostFile, request: int, arg: int) -> int:
    """Of regular files and directories (do_vfs_ioctl)."""
    host, fd = t.kernel.host, file.need_host_fd()
    status = file.stat()
    regular = stat.S_ISREG(status.st_mode)
    if request == FIONREAD and regular:
        t.memory.write_u32(arg, max(status.st_size - file.position(), 0))
    elif request == FIOQSIZE:
        t.memory.write_u64(arg, status.st_size)
    elif request == FIGETBSZ:
        t.memory.write_u32(arg, status.st_blksize)
    elif request == FICLONE:
        source = t.fds.get((arg & 0xFFFFFFFF ^ 0x80000000) - 0x80000000).need_host_fd()
        host.ioctl(fd, request, source)
    elif request == FICLONERANGE:
        source, _, offset, length, target = t.memory.read_struct(arg, "iiQQQ")
        number = t.fds.get(source).need_host_fd()
        packed = b"".join(value.to_bytes(8, "little") for value in (number, offset, length, target))
        host.ioctl(fd, request, packed)
    elif request in _INFO_SIZES:
        result = host.ioctl(fd, request, bytes(_INFO_SIZES[request]))
        t.memory.write(arg, result if isinstance(result, bytes) else b"")
    elif request == FS_IOC_SETFLAGS:
        host.ioctl(fd, request, t.memory.read(arg, 4))
    else:
        return device_ioctl(t, file, request, arg)
    return 0


@syscall("umask")
def umask(t: Task, mask: Int) -> int:
    """umask(2)."""
    old = t.fs.umask
    t.fs.umask = mask & 0o777
    return old
