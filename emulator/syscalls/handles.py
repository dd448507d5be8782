"""File handles: the host's.

Rule: a handle names a file past every directory, so opening one is refused where the guest has a root of its own.
Sources: man 2 open_by_handle_at; fs/fhandle.c (order of checks).
"""

from __future__ import annotations

import stat

from emulator.abi.errno import E
from emulator.abi.fcntl import AT, O
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description
from emulator.kernel.files.regular import HostFile, PathDescription
from emulator.kernel.host_handles import HostFd
from emulator.kernel.paths import HostPlace, OpenPlace
from emulator.kernel.tasks import Task
from emulator.syscalls.files import path_at
from emulator.syscalls.openflags import from_guest
from emulator.syscalls.registry import Fd, Int, Ptr, syscall

CAP_DAC_READ_SEARCH = 2
MAX_HANDLE_SIZE = 128
AT_HANDLE_FID, AT_HANDLE_MNT_ID_UNIQUE, AT_HANDLE_CONNECTABLE = 0x200, 1, 2
_KNOWN = AT.SYMLINK_FOLLOW | AT.EMPTY_PATH | AT_HANDLE_FID | AT_HANDLE_MNT_ID_UNIQUE | AT_HANDLE_CONNECTABLE


@syscall("name_to_handle_at")
def name_to_handle_at(t: Task, dirfd: Fd, pathname: Ptr, handle: Ptr, mount_id: Ptr, flags: Int) -> None:
    """name_to_handle_at(2)."""
    both = AT_HANDLE_FID | AT_HANDLE_CONNECTABLE
    if flags & ~_KNOWN or flags & both == both:
        raise LinuxError(E.EINVAL)
    if flags & AT_HANDLE_CONNECTABLE and flags & AT.EMPTY_PATH:
        raise LinuxError(E.EINVAL)
    path = path_at(t, pathname)
    follow = bool(flags & AT.SYMLINK_FOLLOW)
    place = t.kernel.vfs.walker.resolve(t, dirfd, path, follow=follow, empty=bool(flags & AT.EMPTY_PATH))
    given = flags & ~(AT.SYMLINK_FOLLOW | AT.EMPTY_PATH)
    match place:
        case HostPlace():
            where, name, given = place.dir_fd, place.name, given | (AT.SYMLINK_FOLLOW if place.follow else 0)
        case OpenPlace(description=HostFile() as file):
            where, name, given = file.need_host_fd(), b"", given | AT.EMPTY_PATH
        case _:
            t.kernel.vfs.stat_place(t, place)
            raise LinuxError(E.EOPNOTSUPP)
    t.kernel.host.stat(name or b"/proc/self/fd/%d" % (where or 0), where if name else None, follow or not name)
    size = t.memory.read_u32(handle)
    if size > MAX_HANDLE_SIZE:
        raise LinuxError(E.EINVAL)
    number_size = 8 if flags & AT_HANDLE_MNT_ID_UNIQUE else 4
    found, mount, wanted = t.kernel.host.name_to_handle(where, name, given, size)
    t.memory.write(mount_id, mount.to_bytes(8, "little")[:number_size])
    t.memory.write(handle, found)
    if wanted > size:
        raise LinuxError(E.EOVERFLOW)


@syscall("open_by_handle_at")
def open_by_handle_at(t: Task, mount_fd: Fd, handle: Ptr, flags: Int) -> int:
    """open_by_handle_at(2)."""
    if not t.credentials.capable(CAP_DAC_READ_SEARCH) or t.fs.jailed:
        raise LinuxError(E.EPERM)
    where = AT.FDCWD if mount_fd == AT.FDCWD else t.fds.get_raw(mount_fd).need_host_fd(E.ESTALE)
    size = t.memory.read_u32(handle)
    if not 0 < size <= MAX_HANDLE_SIZE:
        raise LinuxError(E.EINVAL)
    raw = t.memory.read(handle, 8 + size)
    wanted = from_guest(t.arch, flags & 0xFFFFFFFF)
    return t.fds.allocate(_opened(t, where, raw, wanted), cloexec=bool(wanted & O.CLOEXEC))


def _opened(t: Task, where: int, handle: bytes, flags: int) -> Description:
    """What the handle leads to; ELOOP for a link."""
    vfs, host = t.kernel.vfs, t.kernel.host
    holder = HostFd(host.open_by_handle(where, handle, O.PATH))
    if flags & O.PATH:
        return PathDescription(vfs.walker, holder.take(), flags)
    if stat.S_ISLNK(host.fstat(holder.number).st_mode):
        raise LinuxError(E.ELOOP)
    return vfs.reopen_host(t, holder.number, flags)
