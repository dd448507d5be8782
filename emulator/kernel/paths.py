"""From a guest path to the place it names.

Rule: with a root of its own (`--root`, chroot) a walk never leaves it: it goes component by component over O_PATH
descriptors, resolves links itself and verifies every `..`.  Without one, a path that can meet nothing of the
emulator's own goes to the host as it is: one host call.  `/proc` and some names of `/dev` are the emulator's.
Sources: man 7 path_resolution, man 2 openat2 (RESOLVE_IN_ROOT), fs/namei.c.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from emulator.abi.errno import E
from emulator.abi.fcntl import AT, Resolve
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description
from emulator.kernel.files.virtual import MagicLink, Node, VirtualDirectory, VirtualLink
from emulator.kernel.host import Host
from emulator.kernel.host_handles import HostDirectory

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task

PATH_MAX = 4096
NAME_MAX = 255
MAX_LINKS = 40
_NO_ABSOLUTE_LINKS = 1 << 32
_OWN_NAMES = re.compile(rb"(?:^|/)(?:proc|dev)(?:/|$)")


Position: TypeAlias = "HostDirectory | Node"


@dataclass(slots=True)
class FsState:
    """fs_struct: shared by CLONE_FS, copied by fork."""

    root: HostDirectory
    cwd: Position
    umask: int
    jailed: bool
    users: int = 1

    def fork(self) -> FsState:
        """An independent copy."""
        return FsState(self.root, self.cwd, self.umask, self.jailed)

    copy = fork

    def share(self) -> FsState:
        """CLONE_FS."""
        self.users += 1
        return self


@dataclass(frozen=True, slots=True)
class HostPlace:
    """A name the host resolves: `name` relative to `dir_fd`; with `follow` its last link is the host's to follow.

    `slash`: the guest wrote a trailing slash that `name` no longer has.  `direct`: the path went to the host unseen.
    """

    dir_fd: int | None
    name: bytes
    follow: bool
    slash: bool = False
    direct: bool = False
    holder: object = None


@dataclass(frozen=True, slots=True)
class VirtualPlace:
    """A name in the emulator's own file systems; `node` is None where nothing is."""

    parent: Node | None
    name: bytes
    node: Node | None

    def existing(self) -> Node:
        """The node; ENOENT where nothing is."""
        if self.node is None:
            raise LinuxError(E.ENOENT)
        return self.node


@dataclass(frozen=True, slots=True)
class OpenPlace:
    """An open file, named through a descriptor (AT_EMPTY_PATH, /proc/PID/fd/N)."""

    description: Description


Place: TypeAlias = HostPlace | VirtualPlace | OpenPlace


def _may_jump(restrictions: int) -> None:
    """nd_jump_link: what RESOLVE_* say of /proc's magic links."""
    if restrictions & Resolve.NO_MAGICLINKS:
        raise LinuxError(E.ELOOP)
    if restrictions & (Resolve.BENEATH | Resolve.IN_ROOT | Resolve.NO_XDEV):
        raise LinuxError(E.EXDEV)


@dataclass(slots=True)
class Walker:
    """Resolves guest paths.  `mounts` maps a guest directory to the names in it that are the emulator's."""

    host: Host
    root: HostDirectory
    root_path: bytes  # the host's name of the guest's "/"; b"" when it is the host's own
    sysroot: bytes = b""  # tried first for absolute paths of a foreign ISA
    mounts: Mapping[bytes, Mapping[bytes, Callable[[Task], Node]]] = field(default_factory=dict)

    # -- the way in ----------------------------------------------------------------------------------------------

    def resolve(
        self, t: Task, dirfd: int, path: bytes, *, follow: bool = True, empty: bool = False, existing: bool = True
    ) -> Place:
        """Find what `path` names for task `t`; the last component need not exist.

        `empty`: AT_EMPTY_PATH.  `existing` is False for a name to be made, removed or renamed: the sysroot is only for
        looking things up.  Raises ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG, EACCES, EBADF.
        """
        if not path:
            if not empty:
                raise LinuxError(E.ENOENT)
            if dirfd == AT.FDCWD:
                return self._place(t.fs.cwd)
            return OpenPlace(t.fds.get_raw(dirfd))
        if len(path) >= PATH_MAX:
            raise LinuxError(E.ENAMETOOLONG)
        fs = t.fs
        if not fs.jailed and not self.special(path):
            if path[0] == 0x2F:
                if self.sysroot and existing:
                    return HostPlace(None, self.in_sysroot(path), follow, direct=True)
                return HostPlace(None, path, follow, direct=True)
            start = fs.cwd if dirfd == AT.FDCWD else self._start(t, dirfd)
            if type(start) is HostDirectory:
                return HostPlace(start.fd, path, follow, direct=True, holder=start)
        else:
            start = fs.root if path[0] == 0x2F else fs.cwd if dirfd == AT.FDCWD else self._start(t, dirfd)
            if self.sysroot and existing and path[0] == 0x2F and not fs.jailed:
                path = self.in_sysroot(path)
        return self.walk(t, start, path, follow=follow)

    def resolve_within(self, t: Task, dirfd: int, path: bytes, restrictions: int, *, follow: bool) -> Place:
        """The same with openat2(2)'s RESOLVE_* restrictions.  Raises EXDEV and ELOOP for what they forbid."""
        if not path:
            raise LinuxError(E.ENOENT)
        if len(path) >= PATH_MAX:
            raise LinuxError(E.ENAMETOOLONG)
        absolute = path.startswith(b"/")
        if absolute and restrictions & Resolve.BENEATH:
            raise LinuxError(E.EXDEV)
        if absolute and not restrictions & Resolve.IN_ROOT:
            start: Position = t.fs.root
        else:
            start = t.fs.cwd if dirfd == AT.FDCWD else self._start(t, dirfd)
        return self.walk(t, start, path, follow=follow, restrictions=restrictions)

    def special(self, path: bytes) -> bool:
        """Does this path have a component that can be the emulator's?"""
        return (b"proc" in path or b"dev" in path) and _OWN_NAMES.search(path) is not None

    def in_sysroot(self, path: bytes) -> bytes:
        """The path inside the sysroot if something is there, else as it is (qemu's -L)."""
        if not path.strip(b"/."):
            return path
        candidate = self.sysroot + path
        try:
            self.host.stat(candidate, None, False)
        except LinuxError:
            return path
        return candidate

    def _start(self, t: Task, dirfd: int) -> Position:
        description = t.fds.get_raw(dirfd)
        position = description.directory_position()
        if position is None:
            raise LinuxError(E.ENOTDIR)
        return position

    def _place(self, position: Position) -> Place:
        if isinstance(position, Node):
            return VirtualPlace(position.parent, position.name, position)
        return HostPlace(position.fd, b".", True, holder=position)

    # -- the long way --------------------------------------------------------------------------------------------

    def walk(self, t: Task, start: Position, path: bytes, *, follow: bool, restrictions: int = 0) -> Place:
        """Resolve component by component, every link by hand; `restrictions` are RESOLVE_*."""
        root: Position = start if restrictions & Resolve.IN_ROOT else t.fs.root
        if restrictions & Resolve.NO_XDEV and not path.startswith(b"/"):
            restrictions |= _NO_ABSOLUTE_LINKS  # as Linux has it: the root's mount is not known yet (nd_jump_root)
        stack: list[Position] = [root if path.startswith(b"/") else start]
        parts = path.split(b"/")[::-1]
        slash = path.endswith(b"/")
        links = 0
        while parts:
            name = parts.pop()
            if name in (b"", b"."):
                if not isinstance(stack[-1], HostDirectory | VirtualDirectory):
                    raise LinuxError(E.ENOTDIR)
                continue
            if name == b"..":
                if restrictions & Resolve.BENEATH and len(stack) == 1:
                    raise LinuxError(E.EXDEV)
                before = stack[-1]
                self._up(stack, root)
                if restrictions & Resolve.NO_XDEV:
                    self._stay_on_device(before, stack[-1])
                continue
            if len(name) > NAME_MAX:
                raise LinuxError(E.ENAMETOOLONG)
            last = not any(part not in (b"", b".") for part in parts)
            trailing = last and (slash or bool(parts))
            position = stack[-1]
            child = self._own(t, position, name)
            if isinstance(child, Node):
                if restrictions & Resolve.NO_XDEV:
                    self._stay_on_device(position, child)
                if isinstance(child, VirtualLink) and (not last or follow or trailing):
                    links += 1
                    if links > MAX_LINKS or restrictions & Resolve.NO_SYMLINKS:
                        raise LinuxError(E.ELOOP)
                    if isinstance(child, MagicLink):
                        _may_jump(restrictions)
                        landed = child.jump(t)
                        if isinstance(landed, Description):
                            if last:
                                return OpenPlace(landed)
                            inside = landed.directory_position()
                            if inside is None:
                                raise LinuxError(E.ENOTDIR)
                            landed = inside
                        if not isinstance(landed, HostDirectory | Node):
                            raise LinuxError(E.ENOENT)
                        if last and not isinstance(landed, HostDirectory):
                            return VirtualPlace(landed.parent, landed.name, landed)
                        stack.append(landed)
                        continue
                    self._follow(stack, parts, child.target(t), root, restrictions)
                    continue
                if last:
                    if trailing and not isinstance(child, VirtualDirectory):
                        raise LinuxError(E.ENOTDIR)
                    return VirtualPlace(child.parent, name, child)
                stack.append(child)
                continue
            if isinstance(position, Node):
                if not last:
                    raise LinuxError(E.ENOENT)
                return VirtualPlace(position, name, None)
            try:
                found = self.host.stat(name, position.fd, False)
            except LinuxError as error:
                if last and error.errno is E.ENOENT:
                    return HostPlace(position.fd, name, False, trailing, holder=position)
                raise
            if restrictions & Resolve.NO_XDEV and found.st_dev != self.host.fstat(position.fd).st_dev:
                raise LinuxError(E.EXDEV)
            mode = found.st_mode
            if stat.S_ISLNK(mode) and (not last or follow or trailing):
                links += 1
                if links > MAX_LINKS or restrictions & Resolve.NO_SYMLINKS:
                    raise LinuxError(E.ELOOP)
                self._follow(stack, parts, self.host.readlink(name, position.fd), root, restrictions)
                if last and trailing:
                    slash = True
                continue
            if last:
                if trailing and not stat.S_ISDIR(mode):
                    raise LinuxError(E.ENOTDIR)
                return HostPlace(position.fd, name, False, trailing, holder=position)
            if not stat.S_ISDIR(mode):
                raise LinuxError(E.ENOTDIR)
            stack.append(position.enter(name))
        return self._place(stack[-1])

    def _own(self, t: Task, position: Position, name: bytes) -> Node | None:
        """The emulator's own node of that name, or None."""
        if isinstance(position, VirtualDirectory):
            return position.lookup(t, name)
        if isinstance(position, Node):
            raise LinuxError(E.ENOTDIR)
        for directory, names in self.mounts.items():
            if name in names and self.guest_path(position.fd) == directory:
                return names[name](t)
        return None

    def _follow(
        self, stack: list[Position], parts: list[bytes], target: bytes, root: Position, restrictions: int
    ) -> None:
        if not target:
            raise LinuxError(E.ENOENT)
        if target.startswith(b"/"):
            if restrictions & (Resolve.BENEATH | _NO_ABSOLUTE_LINKS):
                raise LinuxError(E.EXDEV)
            if restrictions & Resolve.NO_XDEV:
                self._stay_on_device(stack[-1], root)
            stack[:] = [root]
        parts.extend(target.split(b"/")[::-1])

    def _stay_on_device(self, here: Position, there: Position) -> None:
        """RESOLVE_NO_XDEV: both are of one file system (mounts of the same device count as one)."""
        if isinstance(here, Node) or isinstance(there, Node):
            if not (isinstance(here, Node) and isinstance(there, Node)):
                raise LinuxError(E.EXDEV)
        elif self.host.fstat(here.fd).st_dev != self.host.fstat(there.fd).st_dev:
            raise LinuxError(E.EXDEV)

    def _up(self, stack: list[Position], root: Position) -> None:
        """`..`: back where this walk came from, else the directory's parent if that is inside --root.

        Outside the task's own root (a chroot(2) that left its working directory behind) the walk goes on, as the
        kernel's does: chroot(2) is no wall, --root is.
        """
        here = stack[-1]
        if len(stack) > 1:
            stack.pop()
            return
        if here is root:
            return
        if isinstance(here, Node):
            stack[0] = here.parent if here.parent is not None else root
            return
        if isinstance(root, Node) or here.same(root) or here.same(self.root):
            return
        parent = here.enter(b"..")
        if not self.inside(parent, self.root):
            raise LinuxError(E.ENOENT)
        stack[0] = parent

    def inside(self, directory: HostDirectory, root: HostDirectory) -> bool:
        """Is the directory the root or below it, as the host sees it now?"""
        probe = directory
        for _ in range(PATH_MAX):
            if probe.same(root):
                return True
            above = probe.enter(b"..")
            if above.same(probe):
                return False
            probe = above
        return False

    # -- names of places -----------------------------------------------------------------------------------------

    def guest_path(self, fd: int) -> bytes:
        """What the guest calls the file behind a host descriptor."""
        return self.to_guest(self.host.fd_path(fd))

    def to_guest(self, path: bytes) -> bytes:
        """A host path as the guest names it; "(unreachable)" in front when it is outside the root."""
        if not self.root_path:
            return path
        if path == self.root_path:
            return b"/"
        if path.startswith(self.root_path + b"/"):
            return path[len(self.root_path) :]
        return b"(unreachable)" + path if path.startswith(b"/") else path

    def position_path(self, t: Task, position: Position) -> bytes:
        """getcwd(2)'s text for a position, relative to the task's root."""
        if isinstance(position, Node):
            return position.path()
        path = self.guest_path(position.fd)
        base = self.guest_path(t.fs.root.fd)
        if base == b"/":
            return path
        if path == base:
            return b"/"
        return path[len(base) :] if path.startswith(base + b"/") else b"(unreachable)" + path
