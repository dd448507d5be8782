"""Extended attributes.

Sources: man 2 getxattr, setxattr, listxattr, removexattr; fs/xattr.c (limits and order of checks).
"""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.abi.fcntl import AT
from emulator.abi.memory import PAGE_SIZE
from emulator.errors import LinuxError
from emulator.kernel.tasks import Task
from emulator.kernel.vfs import Pin
from emulator.syscalls.files import path_at
from emulator.syscalls.registry import Fd, Int, Ptr, Size, UInt, syscall

NAME_MAX, SIZE_MAX = 255, 65536


def _name(t: Task, address: int) -> bytes:
    """ERANGE for an empty name or one too long."""
    name = t.memory.read_cstring(address, NAME_MAX + 1, E.ERANGE)
    if not name:
        raise LinuxError(E.ERANGE)
    return name


def _copy_out(t: Task, address: int, size: int, value: bytes) -> int:
    """Size 0 asks for the length."""
    if size:
        if len(value) > size:
            raise LinuxError(E.ERANGE)
        t.memory.write(address, value)
    return len(value)


def _get(t: Task, pathname: int, name: int, value: int, size: int, *, follow: bool) -> int:
    path = path_at(t, pathname)
    key = _name(t, name)
    pin = t.kernel.vfs.pinned_link(t, path, follow=follow)
    return _copy_out(t, value, size, t.kernel.host.getxattr(pin.path, key, pin.follow))


@syscall("getxattr")
def getxattr(t: Task, path: Ptr, name: Ptr, value: Ptr, size: Size) -> int:
    """getxattr(2)."""
    return _get(t, path, name, value, size, follow=True)


@syscall("lgetxattr")
def lgetxattr(t: Task, path: Ptr, name: Ptr, value: Ptr, size: Size) -> int:
    """lgetxattr(2)."""
    return _get(t, path, name, value, size, follow=False)


@syscall("fgetxattr")
def fgetxattr(t: Task, fd: Fd, name: Ptr, value: Ptr, size: Size) -> int:
    """fgetxattr(2)."""
    description = t.fds.get(fd)
    key = _name(t, name)
    number = description.need_host_fd(E.ENODATA)
    return _copy_out(t, value, size, t.kernel.host.getxattr(number, key))


def _value(t: Task, address: int, size: int) -> bytes:
    if size > SIZE_MAX:
        raise LinuxError(E.E2BIG)
    return t.memory.read(address, size)


@syscall("setxattr")
def setxattr(t: Task, path: Ptr, name: Ptr, value: Ptr, size: Size, flags: Int) -> None:
    """setxattr(2)."""
    _set(t, path, name, value, size, flags, follow=True)


@syscall("lsetxattr")
def lsetxattr(t: Task, path: Ptr, name: Ptr, value: Ptr, size: Size, flags: Int) -> None:
    """lsetxattr(2)."""
    _set(t, path, name, value, size, flags, follow=False)


def _set(t: Task, pathname: int, name: int, value: int, size: int, flags: int, *, follow: bool) -> None:
    path = path_at(t, pathname)
    if flags & ~3:
        raise LinuxError(E.EINVAL)
    key = _name(t, name)
    data = _value(t, value, size)
    pin = t.kernel.vfs.pinned_link(t, path, follow=follow)
    t.kernel.host.setxattr(pin.path, key, data, flags, pin.follow)


@syscall("fsetxattr")
def fsetxattr(t: Task, fd: Fd, name: Ptr, value: Ptr, size: Size, flags: Int) -> None:
    """fsetxattr(2)."""
    description = t.fds.get(fd)
    if flags & ~3:
        raise LinuxError(E.EINVAL)
    key = _name(t, name)
    data = _value(t, value, size)
    t.kernel.host.setxattr(description.need_host_fd(E.EOPNOTSUPP), key, data, flags)


def _list(t: Task, pathname: int, listing: int, size: int, *, follow: bool) -> int:
    pin = t.kernel.vfs.pinned_link(t, path_at(t, pathname), follow=follow)
    return _copy_out(t, listing, size, t.kernel.host.listxattr(pin.path, pin.follow))


@syscall("listxattr")
def listxattr(t: Task, path: Ptr, listing: Ptr, size: Size) -> int:
    """listxattr(2)."""
    return _list(t, path, listing, size, follow=True)


@syscall("llistxattr")
def llistxattr(t: Task, path: Ptr, listing: Ptr, size: Size) -> int:
    """llistxattr(2)."""
    return _list(t, path, listing, size, follow=False)


@syscall("flistxattr")
def flistxattr(t: Task, fd: Fd, listing: Ptr, size: Size) -> int:
    """flistxattr(2)."""
    number = t.fds.get(fd).host_fd()
    return _copy_out(t, listing, size, b"" if number is None else t.kernel.host.listxattr(number))


def _remove(t: Task, pathname: int, name: int, *, follow: bool) -> None:
    path = path_at(t, pathname)
    key = _name(t, name)
    pin = t.kernel.vfs.pinned_link(t, path, follow=follow)
    t.kernel.host.removexattr(pin.path, key, pin.follow)


@syscall("removexattr")
def removexattr(t: Task, path: Ptr, name: Ptr) -> None:
    """removexattr(2)."""
    _remove(t, path, name, follow=True)


@syscall("lremovexattr")
def lremovexattr(t: Task, path: Ptr, name: Ptr) -> None:
    """lremovexattr(2)."""
    _remove(t, path, name, follow=False)


@syscall("fremovexattr")
def fremovexattr(t: Task, fd: Fd, name: Ptr) -> None:
    """fremovexattr(2)."""
    description = t.fds.get(fd)
    t.kernel.host.removexattr(description.need_host_fd(E.EOPNOTSUPP), _name(t, name))


# -- by descriptor and path ------------------------------------------------------------------------------------------

_ARGUMENTS = "QII"  # struct xattr_args: value, size, flags


def _at(t: Task, dirfd: int, pathname: int, flags: int) -> Pin:
    if flags & ~(AT.SYMLINK_NOFOLLOW | AT.EMPTY_PATH):
        raise LinuxError(E.EINVAL)
    path = path_at(t, pathname) if pathname or not flags & AT.EMPTY_PATH else b""
    follow, empty = not flags & AT.SYMLINK_NOFOLLOW, bool(flags & AT.EMPTY_PATH)
    return t.kernel.vfs.pinned_link(t, path, dirfd, follow=follow, empty=empty)


def _arguments(t: Task, address: int, size: int) -> tuple[int, int, int]:
    if size < 16:
        raise LinuxError(E.EINVAL)
    if size > PAGE_SIZE or (size > 16 and any(t.memory.read(address + 16, size - 16))):
        raise LinuxError(E.E2BIG)
    value, length, flags = t.memory.read_struct(address, _ARGUMENTS)
    return int(value), int(length), int(flags)


@syscall("getxattrat")
def getxattrat(t: Task, dirfd: Fd, path: Ptr, at_flags: UInt, name: Ptr, args: Ptr, size: Size) -> int:
    """getxattrat(2)."""
    value, length, flags = _arguments(t, args, size)
    if flags:
        raise LinuxError(E.EINVAL)
    key = _name(t, name)
    pin = _at(t, dirfd, path, at_flags)
    return _copy_out(t, value, length, t.kernel.host.getxattr(pin.path, key, pin.follow))


@syscall("setxattrat")
def setxattrat(t: Task, dirfd: Fd, path: Ptr, at_flags: UInt, name: Ptr, args: Ptr, size: Size) -> None:
    """setxattrat(2)."""
    value, length, flags = _arguments(t, args, size)
    if flags & ~3:
        raise LinuxError(E.EINVAL)
    key, data = _name(t, name), _value(t, value, length)
    pin = _at(t, dirfd, path, at_flags)
    t.kernel.host.setxattr(pin.path, key, data, flags, pin.follow)


@syscall("listxattrat")
def listxattrat(t: Task, dirfd: Fd, path: Ptr, at_flags: UInt, listing: Ptr, size: Size) -> int:
    """listxattrat(2)."""
    pin = _at(t, dirfd, path, at_flags)
    return _copy_out(t, listing, size, t.kernel.host.listxattr(pin.path, pin.follow))


@syscall("removexattrat")
def removexattrat(t: Task, dirfd: Fd, path: Ptr, at_flags: UInt, name: Ptr) -> None:
    """removexattrat(2)."""
    key = _name(t, name)
    pin = _at(t, dirfd, path, at_flags)
    t.kernel.host.removexattr(pin.path, key, pin.follow)
