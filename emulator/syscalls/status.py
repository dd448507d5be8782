"""What files are: stat and its family, statfs, access, modes, owners, times.

Rule: the struct is the ISA's (`arch.abi`), packed by a function compiled once for its layout.
Sources: man 2 stat, statx, statfs, access, chmod, chown, utimensat; fs/stat.c, fs/utimes.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache

from emulator.abi.errno import E
from emulator.abi.fcntl import AT
from emulator.abi.layouts import STATFS_GENERIC64, StructLayout
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description, Stat
from emulator.kernel.files.pipe import PipeEnd
from emulator.kernel.files.virtual import Node, VirtualDirectoryDescription, VirtualFileDescription
from emulator.kernel.paths import HostPlace, OpenPlace, Place, VirtualPlace
from emulator.kernel.tasks import Task
from emulator.kernel.vfs import pack_statx
from emulator.syscalls.files import path_at
from emulator.syscalls.registry import Fd, Ptr, UInt, syscall

PROC_SUPER_MAGIC, PIPEFS_MAGIC, SOCKFS_MAGIC, ANON_INODE_FS_MAGIC = 0x9FA0, 0x50495045, 0x534F434B, 0x09041934
UTIME_NOW, UTIME_OMIT = 0x3FFFFFFF, 0x3FFFFFFE
_STAT_FLAGS = AT.SYMLINK_NOFOLLOW | AT.EMPTY_PATH | AT.NO_AUTOMOUNT | AT.STATX_DONT_SYNC | AT.STATX_FORCE_SYNC


@lru_cache(maxsize=16)
def _packer(layout: StructLayout) -> Callable[[Stat], bytes]:
    """A function that lays a status out: straight-line code, because programs stat by the thousand."""
    parts = []
    for name in layout.fields:
        if name.endswith("time"):
            parts.append(f"s.{name}_ns // 1000000000")
        elif name.endswith("time_nsec"):
            parts.append(f"s.{name.removesuffix('_nsec')}_ns % 1000000000")
        else:
            parts.append(f"s.{name}")
    source = f"lambda s: pack({', '.join(parts)})"
    function: Callable[[Stat], bytes] = eval(source, {"pack": struct.Struct(layout.format).pack})  # fixed words
    return function


def write_stat(t: Task, address: int, found: Stat) -> None:
    """copy_to_user of struct stat."""
    t.memory.write(address, _packer(t.arch.abi.stat)(found))


def status_of(t: Task, description: Description) -> Stat:
    """fstat(2)'s answer."""
    if isinstance(description, VirtualDirectoryDescription):
        return description.stat_for(t)
    return description.stat()


@syscall("stat", "stat64")
def stat(t: Task, pathname: Ptr, statbuf: Ptr) -> None:
    """stat(2)."""
    write_stat(t, statbuf, t.kernel.vfs.stat(t, path_at(t, pathname)))


@syscall("lstat", "lstat64")
def lstat(t: Task, pathname: Ptr, statbuf: Ptr) -> None:
    """lstat(2)."""
    write_stat(t, statbuf, t.kernel.vfs.stat(t, path_at(t, pathname), follow=False))


@syscall("fstat", "fstat64")
def fstat(t: Task, fd: Fd, statbuf: Ptr) -> None:
    """fstat(2)."""
    write_stat(t, statbuf, status_of(t, t.fds.get_raw(fd)))


@syscall("newfstatat", "fstatat64")
def newfstatat(t: Task, dirfd: Fd, pathname: Ptr, statbuf: Ptr, flags: UInt) -> None:
    """fstatat(2)."""
    if flags & ~_STAT_FLAGS:
        raise LinuxError(E.EINVAL)
    if flags & AT.EMPTY_PATH and dirfd >= 0 and (not pathname or t.memory.read_u8(pathname) == 0):
        write_stat(t, statbuf, status_of(t, t.fds.get_raw(dirfd)))
        return
    path = path_at(t, pathname)
    follow = not flags & AT.SYMLINK_NOFOLLOW
    found = t.kernel.vfs.stat(t, path, follow=follow, dirfd=dirfd, empty=bool(flags & AT.EMPTY_PATH))
    write_stat(t, statbuf, found)


@syscall("statx")
def statx(t: Task, dirfd: Fd, pathname: Ptr, flags: UInt, mask: UInt, statxbuf: Ptr) -> None:
    """statx(2)."""
    if mask & 0x80000000 or flags & 0x6000 == 0x6000 or flags & ~_STAT_FLAGS:
        raise LinuxError(E.EINVAL)
    path = b"" if flags & AT.EMPTY_PATH and not pathname else path_at(t, pathname)
    if not path and flags & AT.EMPTY_PATH and dirfd >= 0:
        description = t.fds.get_raw(dirfd)
        if description.host_fd() is None:
            t.memory.write(statxbuf, pack_statx(status_of(t, description)))
            return
    t.memory.write(statxbuf, t.kernel.vfs.statx(t, dirfd, path, flags, mask))


# -- file systems ----------------------------------------------------------------------------------------------------


def _write_statfs(t: Task, address: int, found: bytes) -> None:
    layout = t.arch.abi.statfs
    t.memory.write(address, found if layout is STATFS_GENERIC64 else layout.pack(STATFS_GENERIC64.unpack(found)))


def _pseudo(magic: int) -> bytes:
    values = {"f_type": magic, "f_bsize": 4096, "f_namelen": 255, "f_frsize": 4096, "f_flags": 0x20}
    return STATFS_GENERIC64.pack(values)


def _description_statfs(t: Task, description: Description) -> bytes:
    fd = description.host_fd()
    if fd is not None:
        return t.kernel.host.statfs(fd)
    if isinstance(description, PipeEnd):
        return _pseudo(PIPEFS_MAGIC)
    if isinstance(description, VirtualDirectoryDescription | VirtualFileDescription):
        return _pseudo(PROC_SUPER_MAGIC)
    return _pseudo(SOCKFS_MAGIC if description.kind == "socket" else ANON_INODE_FS_MAGIC)


@syscall("statfs")
def statfs(t: Task, pathname: Ptr, buf: Ptr) -> None:
    """statfs(2)."""
    path = path_at(t, pathname)
    vfs = t.kernel.vfs
    place = vfs.walker.resolve(t, AT.FDCWD, path)
    if isinstance(place, VirtualPlace):
        node = place.existing()
        _write_statfs(t, buf, _pseudo(PROC_SUPER_MAGIC if node.path().startswith(b"/proc") else 0x01021994))
        return
    if isinstance(place, OpenPlace):
        _write_statfs(t, buf, _description_statfs(t, place.description))
        return
    _write_statfs(t, buf, t.kernel.host.statfs(vfs.pinned(t, path).path))


@syscall("fstatfs")
def fstatfs(t: Task, fd: Fd, buf: Ptr) -> None:
    """fstatfs(2)."""
    _write_statfs(t, buf, _description_statfs(t, t.fds.get_raw(fd)))


# -- permission ------------------------------------------------------------------------------------------------------


def _access(t: Task, dirfd: int, pathname: int, mode: int, flags: int) -> None:
    if mode & ~7 or flags & ~(AT.EACCESS | AT.SYMLINK_NOFOLLOW | AT.EMPTY_PATH):
        raise LinuxError(E.EINVAL)
    t.kernel.vfs.access(t, path_at(t, pathname), mode, dirfd, flags)


@syscall("access")
def access(t: Task, pathname: Ptr, mode: UInt) -> None:
    """access(2)."""
    _access(t, AT.FDCWD, pathname, mode, 0)


@syscall("faccessat")
def faccessat(t: Task, dirfd: Fd, pathname: Ptr, mode: UInt) -> None:
    """faccessat(2), which has no flags."""
    _access(t, dirfd, pathname, mode, 0)


@syscall("faccessat2")
def faccessat2(t: Task, dirfd: Fd, pathname: Ptr, mode: UInt, flags: UInt) -> None:
    """faccessat2(2)."""
    _access(t, dirfd, pathname, mode, flags)


def _chmod(t: Task, dirfd: int, pathname: int, mode: int, flags: int = 0) -> None:
    path = path_at(t, pathname)
    vfs, host = t.kernel.vfs, t.kernel.host
    follow = not flags & AT.SYMLINK_NOFOLLOW
    place = vfs.walker.resolve(t, dirfd, path, follow=follow, empty=bool(flags & AT.EMPTY_PATH))
    if isinstance(place, HostPlace) and place.direct and follow:
        host.chmod(place.name, mode & 0o7777, place.dir_fd)
        return
    if not follow and isinstance(place, HostPlace):
        found = host.stat(place.name, place.dir_fd, False)
        if found.st_mode & 0o170000 == 0o120000:
            raise LinuxError(E.EOPNOTSUPP)
    pin = vfs.pinned(t, path, dirfd, follow=follow, empty=bool(flags & AT.EMPTY_PATH))
    host.chmod(pin.path, mode & 0o7777)


@syscall("chmod")
def chmod(t: Task, pathname: Ptr, mode: UInt) -> None:
    """chmod(2)."""
    _chmod(t, AT.FDCWD, pathname, mode)


@syscall("fchmodat")
def fchmodat(t: Task, dirfd: Fd, pathname: Ptr, mode: UInt) -> None:
    """fchmodat(2), which has no flags."""
    _chmod(t, dirfd, pathname, mode)


@syscall("fchmodat2")
def fchmodat2(t: Task, dirfd: Fd, pathname: Ptr, mode: UInt, flags: UInt) -> None:
    """fchmodat2(2)."""
    if flags & ~(AT.SYMLINK_NOFOLLOW | AT.EMPTY_PATH):
        raise LinuxError(E.EINVAL)
    _chmod(t, dirfd, pathname, mode, flags)


@syscall("fchmod")
def fchmod(t: Task, fd: Fd, mode: UInt) -> None:
    """fchmod(2)."""
    description = t.fds.get(fd)
    number = description.host_fd()
    if number is not None:
        t.kernel.host.fchmod(number, mode & 0o7777)


def _id(value: int) -> int:
    """uid_t -1 leaves it alone."""
    return -1 if value == 0xFFFFFFFF else value


def _chown(t: Task, dirfd: int, pathname: int, uid: int, gid: int, flags: int) -> None:
    path = path_at(t, pathname)
    vfs, host = t.kernel.vfs, t.kernel.host
    follow, empty = not flags & AT.SYMLINK_NOFOLLOW, bool(flags & AT.EMPTY_PATH)
    place = vfs.walker.resolve(t, dirfd, path, follow=follow, empty=empty)
    if isinstance(place, HostPlace):
        host.chown(place.name, _id(uid), _id(gid), place.dir_fd, place.follow)
        return
    host.chown(vfs.pinned(t, path, dirfd, follow=follow, empty=empty).path, _id(uid), _id(gid))


@syscall("chown")
def chown(t: Task, pathname: Ptr, owner: UInt, group: UInt) -> None:
    """chown(2)."""
    _chown(t, AT.FDCWD, pathname, owner, group, 0)


@syscall("lchown")
def lchown(t: Task, pathname: Ptr, owner: UInt, group: UInt) -> None:
    """lchown(2)."""
    _chown(t, AT.FDCWD, pathname, owner, group, AT.SYMLINK_NOFOLLOW)


@syscall("fchownat")
def fchownat(t: Task, dirfd: Fd, pathname: Ptr, owner: UInt, group: UInt, flags: UInt) -> None:
    """fchownat(2)."""
    if flags & ~(AT.SYMLINK_NOFOLLOW | AT.EMPTY_PATH):
        raise LinuxError(E.EINVAL)
    _chown(t, dirfd, pathname, owner, group, flags)


@syscall("fchown")
def fchown(t: Task, fd: Fd, owner: UInt, group: UInt) -> None:
    """fchown(2)."""
    number = t.fds.get(fd).host_fd()
    if number is not None:
        t.kernel.host.fchown(number, _id(owner), _id(group))


# -- times -----------------------------------------------------------------------------------------------------------


def _set_times(t: Task, place: Place, times: bytes | None) -> None:
    host = t.kernel.host
    match place:
        case HostPlace():
            host.utimens(place.dir_fd, place.name, times, 0 if place.follow else AT.SYMLINK_NOFOLLOW)
        case OpenPlace(description=description):
            number = description.host_fd()
            if number is not None:
                host.utimens(None, b"/proc/self/fd/%d" % number, times, 0)
        case VirtualPlace(node=Node()):
            raise LinuxError(E.EPERM)
        case _:
            raise LinuxError(E.ENOENT)


def _timespecs(t: Task, address: int) -> bytes | None:
    """Two struct timespec in the host's form; EINVAL for nanoseconds that are none."""
    if not address:
        return None
    values = t.memory.read_struct(address, "llll")
    for nanoseconds in values[1::2]:
        if not 0 <= nanoseconds < 1_000_000_000 and nanoseconds not in (UTIME_NOW, UTIME_OMIT):
            raise LinuxError(E.EINVAL)
    return struct.pack("<qqqq", *values)


def _timevals(t: Task, address: int) -> bytes | None:
    if not address:
        return None
    seconds, micros, seconds2, micros2 = t.memory.read_struct(address, "llll")
    if not 0 <= micros < 1_000_000 or not 0 <= micros2 < 1_000_000:
        raise LinuxError(E.EINVAL)
    return struct.pack("<qqqq", seconds, micros * 1000, seconds2, micros2 * 1000)


@syscall("utimensat")
def utimensat(t: Task, dirfd: Fd, pathname: Ptr, times: Ptr, flags: UInt) -> None:
    """utimensat(2)."""
    values = _timespecs(t, times)
    if values is not None and values[8:16] == values[24:32] == struct.pack("<q", UTIME_OMIT):
        return
    if flags & ~(AT.SYMLINK_NOFOLLOW | AT.EMPTY_PATH):
        raise LinuxError(E.EINVAL)
    if not pathname and dirfd != AT.FDCWD:
        if flags:
            raise LinuxError(E.EINVAL)
        _set_times(t, OpenPlace(t.fds.get(dirfd)), values)
        return
    path = path_at(t, pathname)
    follow = not flags & AT.SYMLINK_NOFOLLOW
    empty = bool(flags & AT.EMPTY_PATH)
    _set_times(t, t.kernel.vfs.walker.resolve(t, dirfd, path, follow=follow, empty=empty), values)


@syscall("futimesat")
def futimesat(t: Task, dirfd: Fd, pathname: Ptr, times: Ptr) -> None:
    """futimesat(2)."""
    values = _timevals(t, times)
    if not pathname and dirfd != AT.FDCWD:
        _set_times(t, OpenPlace(t.fds.get(dirfd)), values)
        return
    _set_times(t, t.kernel.vfs.walker.resolve(t, dirfd, path_at(t, pathname)), values)


@syscall("utimes")
def utimes(t: Task, pathname: Ptr, times: Ptr) -> None:
    """utimes(2)."""
    values = _timevals(t, times)
    _set_times(t, t.kernel.vfs.walker.resolve(t, AT.FDCWD, path_at(t, pathname)), values)


@syscall("utime")
def utime(t: Task, pathname: Ptr, times: Ptr) -> None:
    """utime(2)."""
    values = None
    if times:
        accessed, modified = t.memory.read_struct(times, "ll")
        values = struct.pack("<qqqq", accessed, 0, modified, 0)
    _set_times(t, t.kernel.vfs.walker.resolve(t, AT.FDCWD, path_at(t, pathname)), values)
