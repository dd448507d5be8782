"""Names in directories: made, removed, renamed, linked, read; and the working directory.

Sources: man 2 mkdir, rmdir, unlink, rename, link, symlink, readlink, mknod, getcwd, chdir, chroot, getdents, mount.
"""

from __future__ import annotations

import struct

from emulator.abi.errno import E
from emulator.abi.fcntl import AT
from emulator.abi.memory import Access
from emulator.errors import LinuxError
from emulator.kernel.files.description import scatter
from emulator.kernel.host_handles import HostDirectory
from emulator.kernel.paths import HostPlace, OpenPlace, Position, VirtualPlace
from emulator.kernel.tasks import Task
from emulator.kernel.vfs import Vfs
from emulator.syscalls.files import path_at
from emulator.syscalls.registry import Fd, Int, Ptr, Size, UInt, syscall

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
S_IFMT, S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK, S_IFDIR = (
    0o170000,
    0o100000,
    0o020000,
    0o060000,
    0o010000,
    0o140000,
    0o040000,
)
CAP_SYS_CHROOT = 18


@syscall("mkdir")
def mkdir(t: Task, pathname: Ptr, mode: UInt) -> None:
    """mkdir(2)."""
    mkdirat(t, AT.FDCWD, pathname, mode)


@syscall("mkdirat")
def mkdirat(t: Task, dirfd: Fd, pathname: Ptr, mode: UInt) -> None:
    """mkdirat(2)."""
    place = t.kernel.vfs.new_name(t, path_at(t, pathname), dirfd, directory=True)
    t.kernel.host.mkdir(place.name, mode & 0o1777, place.dir_fd, t.fs.umask)


@syscall("rmdir")
def rmdir(t: Task, pathname: Ptr) -> None:
    """rmdir(2)."""
    unlinkat(t, AT.FDCWD, pathname, AT.REMOVEDIR)


@syscall("unlink")
def unlink(t: Task, pathname: Ptr) -> None:
    """unlink(2)."""
    unlinkat(t, AT.FDCWD, pathname, 0)


@syscall("unlinkat")
def unlinkat(t: Task, dirfd: Fd, pathname: Ptr, flags: UInt) -> None:
    """unlinkat(2)."""
    if flags & ~AT.REMOVEDIR:
        raise LinuxError(E.EINVAL)
    path = path_at(t, pathname)
    place = t.kernel.vfs.name(t, path, dirfd, missing=E.ENOENT, refusal=E.ENOTDIR if flags else E.EPERM)
    if flags:
        if place.name == b"." and not place.direct:
            last = path.rstrip(b"/").rpartition(b"/")[2]
            raise LinuxError({b".": E.EINVAL, b"..": E.ENOTEMPTY}.get(last, E.EBUSY))
        t.kernel.host.rmdir(place.name, place.dir_fd)
        return
    if place.name == b"." and not place.direct:
        raise LinuxError(E.EISDIR)
    if place.slash:
        t.kernel.host.stat(place.name, place.dir_fd, False)
        raise LinuxError(E.EISDIR)
    t.kernel.host.unlink(place.name, place.dir_fd)


@syscall("rename")
def rename(t: Task, oldpath: Ptr, newpath: Ptr) -> None:
    """rename(2)."""
    renameat2(t, AT.FDCWD, oldpath, AT.FDCWD, newpath, 0)


@syscall("renameat")
def renameat(t: Task, olddirfd: Fd, oldpath: Ptr, newdirfd: Fd, newpath: Ptr) -> None:
    """renameat(2)."""
    renameat2(t, olddirfd, oldpath, newdirfd, newpath, 0)


@syscall("renameat2")
def renameat2(t: Task, olddirfd: Fd, oldpath: Ptr, newdirfd: Fd, newpath: Ptr, flags: UInt) -> None:
    """renameat2(2)."""
    if flags & ~7 or (flags & (RENAME_NOREPLACE | RENAME_WHITEOUT) and flags & RENAME_EXCHANGE):
        raise LinuxError(E.EINVAL)
    first, second = path_at(t, oldpath), path_at(t, newpath)
    vfs = t.kernel.vfs
    old = vfs.name(t, first, olddirfd, missing=E.ENOENT, refusal=E.EXDEV)
    new = vfs.name(t, second, newdirfd, missing=E.EXDEV, refusal=E.EXDEV)
    if not old.direct or not new.direct:
        if (old.name == b"." and not old.direct) or (new.name == b"." and not new.direct):
            raise LinuxError(E.EBUSY)
        if new.slash and t.kernel.host.stat(old.name, old.dir_fd, False).st_mode & S_IFMT != S_IFDIR:
            raise LinuxError(E.ENOTDIR)
    t.kernel.host.rename(old.name, new.name, old.dir_fd, new.dir_fd, flags)


@syscall("link")
def link(t: Task, oldpath: Ptr, newpath: Ptr) -> None:
    """link(2)."""
    linkat(t, AT.FDCWD, oldpath, AT.FDCWD, newpath, 0)


@syscall("linkat")
def linkat(t: Task, olddirfd: Fd, oldpath: Ptr, newdirfd: Fd, newpath: Ptr, flags: UInt) -> None:
    """linkat(2)."""
    if flags & ~(AT.SYMLINK_FOLLOW | AT.EMPTY_PATH):
        raise LinuxError(E.EINVAL)
    vfs, host = t.kernel.vfs, t.kernel.host
    old_path = path_at(t, oldpath)
    follow = bool(flags & AT.SYMLINK_FOLLOW)
    old = vfs.walker.resolve(t, olddirfd, old_path, follow=follow, empty=bool(flags & AT.EMPTY_PATH))
    vfs.stat_place(t, old, old_path, olddirfd)  # what is linked is looked up before the new name is even read
    new = vfs.new_name(t, path_at(t, newpath), newdirfd)
    match old:
        case HostPlace():
            host.link(old.name, new.name, old.dir_fd, new.dir_fd, AT.SYMLINK_FOLLOW if old.follow else 0)
        case OpenPlace(description=description):
            number = description.need_host_fd(E.EXDEV)
            host.link(b"/proc/self/fd/%d" % number, new.name, None, new.dir_fd, AT.SYMLINK_FOLLOW)
        case VirtualPlace():
            old.existing()
            raise LinuxError(E.EXDEV)


@syscall("symlink")
def symlink(t: Task, target: Ptr, linkpath: Ptr) -> None:
    """symlink(2)."""
    symlinkat(t, target, AT.FDCWD, linkpath)


@syscall("symlinkat")
def symlinkat(t: Task, target: Ptr, newdirfd: Fd, linkpath: Ptr) -> None:
    """symlinkat(2)."""
    text = path_at(t, target)
    path = path_at(t, linkpath)
    if not text:
        raise LinuxError(E.ENOENT)
    place = t.kernel.vfs.new_name(t, path, newdirfd)
    t.kernel.host.symlink(text, place.name, place.dir_fd)


@syscall("readlink")
def readlink(t: Task, pathname: Ptr, buf: Ptr, bufsiz: Int) -> int:
    """readlink(2)."""
    return readlinkat(t, AT.FDCWD, pathname, buf, bufsiz)


@syscall("readlinkat")
def readlinkat(t: Task, dirfd: Fd, pathname: Ptr, buf: Ptr, bufsiz: Int) -> int:
    """readlinkat(2)."""
    if bufsiz <= 0:
        raise LinuxError(E.EINVAL)
    text = t.kernel.vfs.readlink(t, path_at(t, pathname), dirfd)[:bufsiz]
    t.memory.write(buf, text)
    return len(text)


@syscall("mknod")
def mknod(t: Task, pathname: Ptr, mode: UInt, dev: UInt) -> None:
    """mknod(2)."""
    mknodat(t, AT.FDCWD, pathname, mode, dev)


@syscall("mknodat")
def mknodat(t: Task, dirfd: Fd, pathname: Ptr, mode: UInt, dev: UInt) -> None:
    """mknodat(2): inside a root of its own no device nodes, which would lead out of it."""
    kind = mode & S_IFMT
    if kind == S_IFDIR:
        raise LinuxError(E.EPERM)
    if kind not in (0, S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK):
        raise LinuxError(E.EINVAL)
    place = t.kernel.vfs.new_name(t, path_at(t, pathname), dirfd)
    if kind in (S_IFCHR, S_IFBLK) and t.fs.jailed:
        raise LinuxError(E.EPERM)
    t.kernel.host.mknod(place.name, mode & 0o7777 | (kind or S_IFREG), dev, place.dir_fd, t.fs.umask)


# -- working directory -----------------------------------------------------------------------------------------------


@syscall("getcwd")
def getcwd(t: Task, buf: Ptr, size: Size) -> int:
    """getcwd(2): the length, with the NUL."""
    path = t.kernel.vfs.walker.position_path(t, t.fs.cwd)
    if path.endswith(b" (deleted)"):
        raise LinuxError(E.ENOENT)
    if len(path) + 1 > size:
        raise LinuxError(E.ERANGE)
    t.memory.write(buf, path + b"\0")
    return len(path) + 1


def _enter(t: Task, position: Position) -> Position:
    """Search permission on a directory about to become current."""
    if isinstance(position, HostDirectory):
        t.kernel.host.access(b".", 1, AT.EACCESS, position.fd)
    return position


@syscall("chdir")
def chdir(t: Task, path: Ptr) -> None:
    """chdir(2)."""
    t.fs.cwd = _enter(t, t.kernel.vfs.position(t, path_at(t, path)))


@syscall("fchdir")
def fchdir(t: Task, fd: Fd) -> None:
    """fchdir(2)."""
    t.fs.cwd = _enter(t, Vfs.position_of(t.fds.get_raw(fd)))


@syscall("chroot")
def chroot(t: Task, path: Ptr) -> None:
    """chroot(2): from here on paths are walked inside it."""
    position = _enter(t, t.kernel.vfs.position(t, path_at(t, path)))
    if not t.credentials.capable(CAP_SYS_CHROOT):
        raise LinuxError(E.EPERM)
    if not isinstance(position, HostDirectory):
        raise LinuxError(E.EPERM)
    t.fs.root = position
    t.fs.jailed = not position.same(t.kernel.vfs.root) or t.kernel.vfs.jailed


# -- directories -----------------------------------------------------------------------------------------------------


@syscall("getdents64")
def getdents64(t: Task, fd: Fd, dirp: Ptr, count: UInt) -> int:
    """getdents64(2)."""
    description = t.fds.get(fd)
    buffers = t.memory.buffers(dirp, min(count, 1 << 20), Access.WRITE)
    return scatter(buffers, description.getdents(t, count))


@syscall("getdents")
def getdents(t: Task, fd: Fd, dirp: Ptr, count: UInt) -> int:
    """getdents(2): struct linux_dirent, whose kind is its last byte."""
    description = t.fds.get(fd)
    buffers = t.memory.buffers(dirp, min(count, 1 << 20), Access.WRITE)
    data = description.getdents(t, count)
    result = bytearray()
    offset = 0
    while offset < len(data):
        inode, next_offset, length, kind = struct.unpack_from("<QqHB", data, offset)
        name = data[offset + 19 : offset + length].split(b"\0", 1)[0]
        size = (18 + len(name) + 2 + 7) & ~7  # never longer than the new record
        record = struct.pack("<QqH", inode, next_offset, size) + name
        result += record.ljust(size - 1, b"\0") + bytes((kind,))
        offset += length
    return scatter(buffers, result)
