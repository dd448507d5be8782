"""Operations on named files: what a place found by a walk is asked to do.

Rule: a place is one of three (the host's, the emulator's own, an open description), and every operation says what it
does for each.  With a root of its own nothing here lets the host follow a link by itself.
Sources: man 2 of each operation; fs/namei.c, fs/open.c.
"""

from __future__ import annotations

import stat
import struct
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import AT, O
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description, Stat, VirtualStat
from emulator.kernel.files.devices import open_device
from emulator.kernel.files.fifo import open_fifo
from emulator.kernel.files.mounts import system_mounts
from emulator.kernel.files.regular import HostDirectoryDescription, PathDescription, RegularFile, tell_shrunk
from emulator.kernel.files.streams import HostStream
from emulator.kernel.files.tty import HostTty, PtyMaster
from emulator.kernel.files.virtual import (
    VirtualDirectory,
    VirtualDirectoryDescription,
    VirtualLink,
    VirtualPathDescription,
)
from emulator.kernel.host import Host
from emulator.kernel.host_handles import HostDirectory, HostFd
from emulator.kernel.leases import Leases
from emulator.kernel.locks import Locks
from emulator.kernel.paths import FsState, HostPlace, OpenPlace, Place, VirtualPlace, Walker

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task
    from emulator.kernel.vma import MappableFile

_TO_HOST = ~(O.CLOEXEC | O.ASYNC)
_ALWAYS = O.NONBLOCK | O.NOCTTY | O.CLOEXEC
_KEEP = ~(O.CREAT | O.EXCL | O.NOCTTY | O.TRUNC | O.CLOEXEC)  # what F_GETFL shows


class Vfs:
    """The guest's file system tree."""

    def __init__(self, host: Host, root: str = "/", sysroot: str = "") -> None:
        """`root` is the host directory that is the guest's "/"."""
        self.host = host
        descriptor = host.open_directory(root)
        self.root = HostDirectory(host, descriptor)
        real = host.fd_path(descriptor)
        self.jailed = real != b"/"
        mounts = system_mounts(jailed=self.jailed, has_dev=self._exists(b"dev"), has_shm=self._exists(b"dev/shm"))
        self.walker = Walker(
            host, self.root, real if self.jailed else b"", host.encode(sysroot) if sysroot else b"", mounts
        )
        self.locks = Locks(host)
        self.leases = Leases()
        self.proc_device = self._device(b"/proc")
        self.fifo_openers: dict[tuple[int, int], object] = {}

    def _exists(self, name: bytes) -> bool:
        try:
            self.host.stat(name, self.root.fd, False)
        except LinuxError:
            return False
        return True

    def _device(self, path: bytes) -> int:
        try:
            return self.host.stat(path).st_dev
        except LinuxError:
            return -1

    # -- where a process begins ----------------------------------------------------------------------------------

    def initial_state(self, t: Task | None = None, cwd: str = "") -> FsState:
        """fs_struct of the first process; an empty `cwd` is the emulator's own, if that is inside the root."""
        state = FsState(self.root, self.root, self.host.initial_umask, self.jailed)
        wanted = self.host.encode(cwd) if cwd else self.host.getcwd()
        inside = wanted if cwd or not self.jailed else self.walker.to_guest(wanted)
        if inside.startswith(b"/") and inside != b"/":
            try:
                if self.jailed:
                    directory = self.root
                    for part in inside.split(b"/"):
                        if part not in (b"", b"."):
                            directory = directory.enter(part)
                    state.cwd = directory
                else:
                    state.cwd = HostDirectory(self.host, self.host.open(inside, O.PATH | O.DIRECTORY))
            except LinuxError:
                if cwd:
                    raise
        return state

    def standard_files(self) -> list[Description]:
        """Descriptions of the emulator's own stdin, stdout and stderr; closed ones are left out by ENOENT files."""
        files: list[Description] = []
        for fd in (0, 1, 2):
            try:
                flags = int(self.host.fcntl(fd, 3))
            except LinuxError:
                break
            files.append(self.adopt(fd, flags & ~O.LARGEFILE))
        return files

    def adopt(self, fd: int, flags: int) -> Description:
        """A description for a host descriptor that others use too."""
        mode = self.host.fstat(fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
            return RegularFile(self.walker, self.host.dup(fd), flags, self.locks)
        if stat.S_ISDIR(mode):
            return HostDirectoryDescription(self.walker, self.host.dup(fd), flags)
        if stat.S_ISCHR(mode):
            if self.host.isatty(fd):
                return HostTty(self.walker, fd, flags, inherited=True)
            device = open_device(self.host, self.host.fstat(fd).st_rdev, flags)
            if device is not None:
                return device
        return HostStream(self.walker, fd, flags, inherited=True)

    # -- open ----------------------------------------------------------------------------------------------------

    def open(
        self, t: Task, path: bytes, flags: int, mode: int = 0, dirfd: int = AT.FDCWD, restrictions: int = 0
    ) -> Description:
        """openat(2); `flags` in the numbers of `abi.fcntl.O`; `restrictions` are openat2(2)'s RESOLVE_*."""
        if flags & O.PATH:
            flags &= O.PATH | O.DIRECTORY | O.NOFOLLOW | O.CLOEXEC
        exclusive = flags & (O.CREAT | O.EXCL) == O.CREAT | O.EXCL
        follow = not flags & O.NOFOLLOW and not exclusive
        if restrictions:
            place = self.walker.resolve_within(t, dirfd, path, restrictions, follow=follow)
        else:
            place = self.walker.resolve(t, dirfd, path, follow=follow)
        return self.open_place(t, place, flags, mode, path, dirfd)

    def open_place(
        self, t: Task, place: Place, flags: int, mode: int = 0, path: bytes = b"", dirfd: int = AT.FDCWD
    ) -> Description:
        """Open what a walk has found."""
        match place:
            case VirtualPlace(node=None):
                raise LinuxError(E.ENOENT)
            case VirtualPlace():
                node = place.existing()
                if flags & (O.CREAT | O.EXCL) == O.CREAT | O.EXCL:
                    raise LinuxError(E.EEXIST)
                if flags & O.DIRECTORY and not isinstance(node, VirtualDirectory):
                    raise LinuxError(E.ELOOP if isinstance(node, VirtualLink) else E.ENOTDIR)
                if flags & O.PATH:
                    if isinstance(node, VirtualDirectory):
                        return VirtualDirectoryDescription(self.host, flags, node, t)
                    return VirtualPathDescription(self.host, flags, node, t)
                return node.open(t, flags)
            case OpenPlace(description=description):
                if flags & (O.CREAT | O.EXCL) == O.CREAT | O.EXCL:
                    raise LinuxError(E.EEXIST)
                return description.reopen(t, flags)
            case HostPlace():
                return self._open_host(t, place, flags, mode, path, dirfd)

    def _open_host(self, t: Task, place: HostPlace, flags: int, mode: int, path: bytes, dirfd: int) -> Description:
        wanted = flags & _TO_HOST | _ALWAYS
        if not place.follow:
            wanted |= O.NOFOLLOW
        if flags & (O.ACCMODE | O.TRUNC):
            self._deny_write(t, place)
        if place.slash:
            if flags & O.CREAT:
                raise LinuxError(E.EISDIR)
            wanted |= O.DIRECTORY
        if self.leases and not flags & O.PATH:
            self._break_leases(t, place, flags)
        try:
            if flags & (O.CREAT | O.TMPFILE & ~O.DIRECTORY):
                fd = self.host.with_umask(t.fs.umask, self.host.open, place.name, wanted, mode & 0o7777, place.dir_fd)
            else:
                fd = self.host.open(place.name, wanted, 0, place.dir_fd)
        except LinuxError as error:
            if error.errno is not E.ENXIO:
                raise
            return self._open_special(t, place, flags)
        holder = HostFd(fd)
        status = self.host.fstat(fd)
        if place.direct and status.st_dev == self.proc_device:  # a link led into the host's /proc
            again = self.walk_again(t, path, dirfd, place.follow)
            return self.open_place(t, again, flags, mode, path)
        if flags & O.PATH:
            return PathDescription(self.walker, holder.take(), flags)
        kept = flags & _KEEP
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG or kind == stat.S_IFBLK:
            if flags & O.TRUNC:
                tell_shrunk(t, (status.st_dev, status.st_ino), 0)
            return RegularFile(self.walker, holder.take(), kept, self.locks)
        if kind == stat.S_IFDIR:
            return HostDirectoryDescription(self.walker, holder.take(), kept)
        if kind == stat.S_IFCHR:
            if status.st_rdev == 0x500:  # /dev/tty, by a name of its own
                return self.controlling_tty(t, flags)
            device = open_device(self.host, status.st_rdev, kept, self.walker.guest_path(fd))
            if device is not None:
                return device
            if status.st_rdev == 0x502:
                return PtyMaster(t, self.walker, holder.take(), kept)
            if self.host.isatty(fd):
                return HostTty(self.walker, holder.take(), kept)
        if kind == stat.S_IFIFO:
            return open_fifo(t, self.walker, holder, status, kept)
        return HostStream(self.walker, holder.take(), kept)

    def _deny_write(self, t: Task, place: HostPlace) -> None:
        """ETXTBSY for a file that a process executes (deny_write_access)."""
        try:
            status = self.host.stat(place.name, place.dir_fd, place.follow)
        except LinuxError:
            return
        for exe in _programs(t):
            if exe.mmap_identity() == (status.st_dev, status.st_ino):
                raise LinuxError(E.ETXTBSY)

    def _break_leases(self, t: Task, place: HostPlace, flags: int) -> None:
        """What open(2) waits for before it gives somebody else the file."""
        try:
            status = self.host.stat(place.name, place.dir_fd, place.follow)
        except LinuxError:
            return
        key, write = (status.st_dev, status.st_ino), bool(flags & (O.ACCMODE | O.TRUNC))
        self.leases.break_for(t, key, write=write, nonblocking=bool(flags & O.NONBLOCK))

    def _open_special(self, t: Task, place: HostPlace, flags: int) -> Description:
        """ENXIO: a FIFO opened for writing that nobody reads; a device without a driver; a socket; /dev/tty."""
        status = self.host.stat(place.name, place.dir_fd, place.follow)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0x500:
            return self.controlling_tty(t, flags)
        if not stat.S_ISFIFO(status.st_mode) or flags & O.NONBLOCK:
            raise LinuxError(E.ENXIO)
        return open_fifo(t, self.walker, None, status, flags & _KEEP)

    def controlling_tty(self, t: Task, flags: int) -> Description:
        """/dev/tty."""
        tty = t.group.session.tty
        if not isinstance(tty, Description):
            raise LinuxError(E.ENXIO)
        return tty.reopen(t, flags)

    def reopen_host(self, t: Task, fd: int, flags: int) -> Description:
        """open(2) of /proc/PID/fd/N where N is a host file."""
        place = HostPlace(None, b"/proc/self/fd/%d" % fd, True)
        return self._open_host(t, place, flags & ~(O.NOFOLLOW | O.EXCL), 0, b"", AT.FDCWD)

    # -- status --------------------------------------------------------------------------------------------------

    def stat(self, t: Task, path: bytes, *, follow: bool = True, dirfd: int = AT.FDCWD, empty: bool = False) -> Stat:
        """fstatat(2)."""
        place = self.walker.resolve(t, dirfd, path, follow=follow, empty=empty)
        return self.stat_place(t, place, path, dirfd)

    def stat_place(self, t: Task, place: Place, path: bytes = b"", dirfd: int = AT.FDCWD) -> Stat:
        """Status of what a walk has found."""
        match place:
            case HostPlace():
                found = self.host.stat(place.name, place.dir_fd, place.follow)
                if place.direct and found.st_dev == self.proc_device:
                    return self.stat_place(t, self.walk_again(t, path, dirfd, place.follow))
                return found
            case VirtualPlace(node=None):
                raise LinuxError(E.ENOENT)
            case VirtualPlace():
                node = place.existing()
                return node.stat(t)
            case OpenPlace(description=description):
                return description.stat()

    def walk_again(self, t: Task, path: bytes, dirfd: int, follow: bool) -> Place:
        """The long way, after the short one led into the host's /proc."""
        start = t.fs.cwd
        if dirfd != AT.FDCWD:
            start = t.fds.get_raw(dirfd).directory_position() or start
        return self.walker.walk(t, start, path, follow=follow)

    def statx(self, t: Task, dirfd: int, path: bytes, flags: int, mask: int) -> bytes:
        """statx(2): struct statx."""
        follow = not flags & AT.SYMLINK_NOFOLLOW
        place = self.walker.resolve(t, dirfd, path, follow=follow, empty=bool(flags & AT.EMPTY_PATH))
        sync = flags & (AT.STATX_DONT_SYNC | AT.STATX_FORCE_SYNC)
        match place:
            case HostPlace():
                nofollow = 0 if place.follow else AT.SYMLINK_NOFOLLOW
                found = self.host.statx(place.dir_fd, place.name, sync | nofollow, mask)
                if place.direct and _statx_device(found) == self.proc_device:
                    return pack_statx(self.stat_place(t, self.walk_again(t, path, dirfd, follow)))
                return found
            case OpenPlace(description=description) if (fd := description.host_fd()) is not None:
                return self.host.statx(fd, b"", sync | AT.EMPTY_PATH, mask)
            case _:
                return pack_statx(self.stat_place(t, place))

    def readlink(self, t: Task, path: bytes, dirfd: int = AT.FDCWD) -> bytes:
        """readlinkat(2); an empty path reads the link that `dirfd` (O_PATH) is."""
        place = self.walker.resolve(t, dirfd, path, follow=False, empty=dirfd != AT.FDCWD)
        match place:
            case HostPlace():
                return self.host.readlink(place.name, place.dir_fd)
            case VirtualPlace(node=VirtualLink() as link):
                return link.target(t)
            case VirtualPlace(node=None):
                raise LinuxError(E.ENOENT)
            case OpenPlace(description=VirtualPathDescription(node=VirtualLink() as link)):
                return link.target(t)
            case OpenPlace(description=description):
                fd = description.host_fd()
                if fd is None or not stat.S_ISLNK(description.stat().st_mode):
                    raise LinuxError(E.ENOENT)
                return self.host.readlink(b"", fd)
            case _:
                raise LinuxError(E.EINVAL)

    def access(self, t: Task, path: bytes, mode: int, dirfd: int = AT.FDCWD, flags: int = 0) -> None:
        """faccessat2(2): as the real ids, unless AT_EACCESS asks for those the file system goes by."""
        who = t.credentials
        as_real = not flags & AT.EACCESS and (who.ruid, who.rgid) != (who.fsuid, who.fsgid)
        if as_real:
            self.host.become(who.ruid, who.rgid, who.groups, 0 if who.ruid else who.cap_permitted)
        try:
            self._access(t, path, mode, dirfd, flags)
        finally:
            if as_real:
                self.host.become(who.fsuid, who.fsgid, who.groups, who.cap_effective)

    def _access(self, t: Task, path: bytes, mode: int, dirfd: int, flags: int) -> None:
        follow = not flags & AT.SYMLINK_NOFOLLOW
        place = self.walker.resolve(t, dirfd, path, follow=follow, empty=bool(flags & AT.EMPTY_PATH))
        match place:
            case HostPlace():
                nofollow = 0 if place.follow else AT.SYMLINK_NOFOLLOW
                self.host.access(place.name, mode, AT.EACCESS | nofollow, place.dir_fd)
            case VirtualPlace(node=None):
                raise LinuxError(E.ENOENT)
            case VirtualPlace():
                node = place.existing()
                if mode & ~((node.mode >> 6 | (6 if node.uid == 0 == t.credentials.ruid else 0)) & 7):
                    raise LinuxError(E.EACCES)
            case OpenPlace(description=description):
                fd = description.host_fd()
                if fd is not None:
                    self.host.access(b"/proc/self/fd/%d" % fd, mode, AT.EACCESS)

    # -- places for calls that take names ------------------------------------------------------------------------

    def name(
        self, t: Task, path: bytes, dirfd: int = AT.FDCWD, *, missing: E = E.EACCES, refusal: E = E.EPERM
    ) -> HostPlace:
        """The place of a name to be made, removed or renamed; the emulator's own names refuse."""
        place = self.walker.resolve(t, dirfd, path, follow=False, existing=False)
        if isinstance(place, HostPlace):
            return place
        if isinstance(place, VirtualPlace) and place.node is None:
            raise LinuxError(missing)
        if refusal is E.ENOTDIR and isinstance(place, VirtualPlace) and isinstance(place.node, VirtualDirectory):
            raise LinuxError(E.EPERM)
        raise LinuxError(refusal)

    def new_name(self, t: Task, path: bytes, dirfd: int = AT.FDCWD, *, directory: bool = False) -> HostPlace:
        """The place of a name to be made: EEXIST for the emulator's own, ENOENT for a trailing slash on a file."""
        place = self.walker.resolve(t, dirfd, path, follow=False, existing=False)
        if isinstance(place, HostPlace):
            if place.slash and not directory:
                raise LinuxError(E.ENOENT)
            if place.name == b"." and not place.direct:
                raise LinuxError(E.EEXIST)
            return place
        if isinstance(place, VirtualPlace) and place.node is None:
            raise LinuxError(E.ENOENT)
        raise LinuxError(E.EEXIST)

    def pinned(
        self,
        t: Task,
        path: bytes,
        dirfd: int = AT.FDCWD,
        *,
        follow: bool = True,
        empty: bool = False,
        refusal: E = E.EPERM,
    ) -> Pin:
        """An existing file in a form that host calls without a dirfd take; `refusal` for the emulator's own."""
        place = self.walker.resolve(t, dirfd, path, follow=follow, empty=empty)
        match place:
            case HostPlace(dir_fd=None):
                return Pin(place.name, place)
            case HostPlace(direct=True):
                return Pin(b"/proc/self/fd/%d/%s" % (place.dir_fd or 0, place.name), place)
            case HostPlace():
                fd = self.host.open(place.name, O.PATH | O.NOFOLLOW, 0, place.dir_fd)
                return Pin(b"/proc/self/fd/%d" % fd, HostFd(fd))
            case OpenPlace(description=description):
                number = description.host_fd()
                if number is None:
                    raise LinuxError(refusal)
                return Pin(b"/proc/self/fd/%d" % number, description)
            case VirtualPlace(node=None):
                raise LinuxError(E.ENOENT)
            case _:
                raise LinuxError(refusal)

    def pinned_link(self, t: Task, path: bytes, dirfd: int = AT.FDCWD, *, follow: bool, empty: bool = False) -> Pin:
        """As `pinned`, for calls that tell a link from what it leads to.

        A walked link is named through its directory: a descriptor of the link itself would be followed by /proc.
        """
        if not follow:
            place = self.walker.resolve(t, dirfd, path, follow=False, empty=empty)
            if isinstance(place, HostPlace):
                if place.dir_fd is None:
                    return Pin(place.name, place, False)
                return Pin(b"/proc/self/fd/%d/%s" % (place.dir_fd, place.name), place, False)
        return self.pinned(t, path, dirfd, follow=follow, empty=empty, refusal=E.EOPNOTSUPP)

    def position(self, t: Task, path: bytes) -> HostDirectory | VirtualDirectory:
        """A directory to make current (chdir, chroot): ENOTDIR otherwise."""
        description = self.open(t, path, O.PATH | O.DIRECTORY)
        try:
            return self.position_of(description)
        finally:
            description.close()

    @staticmethod
    def position_of(description: Description) -> HostDirectory | VirtualDirectory:
        """fchdir(2)'s directory."""
        position = description.directory_position()
        if isinstance(position, HostDirectory | VirtualDirectory):
            return position
        raise LinuxError(E.ENOTDIR)


def _programs(t: Task) -> list[MappableFile]:
    """What is being executed, each once; zombies have no memory, and so no program."""
    found: dict[int, MappableFile] = {}
    for group in t.kernel.groups.values():
        space = group.leader.space if group.leader is not None and not group.zombie else None
        if space is not None and space.exe is not None:
            found[id(space.exe)] = space.exe
    return list(found.values())


class Pin:
    """A host path that stays good as long as the object lives."""

    __slots__ = ("_holder", "follow", "path")

    def __init__(self, path: bytes, holder: object, follow: bool = True) -> None:
        self.path = path
        self._holder = holder
        self.follow = follow


def _statx_device(data: bytes) -> int:
    major, minor = struct.unpack_from("<II", data, 0x88)
    device: int = (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12
    return device


def split_device(device: int) -> tuple[int, int]:
    """major and minor of a host dev_t."""
    return device >> 8 & 0xFFF | device >> 32 & ~0xFFF, device & 0xFF | device >> 12 & 0xFFFFFF00


def pack_statx(found: Stat | VirtualStat) -> bytes:
    """struct statx from a struct stat's facts: STATX_BASIC_STATS, no birth time."""
    times = b"".join(
        struct.pack("<qI4x", *divmod(value, 1_000_000_000))
        for value in (found.st_atime_ns, 0, found.st_ctime_ns, found.st_mtime_ns)
    )
    head = struct.pack(
        "<IIQIIIH2xQQQQ",
        0x7FF,
        found.st_blksize,
        0,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        found.st_mode,
        found.st_ino,
        found.st_size,
        found.st_blocks,
        0,
    )
    devices = struct.pack("<IIII", *split_device(found.st_rdev), *split_device(found.st_dev))
    return (head + times + devices).ljust(256, b"\0")
