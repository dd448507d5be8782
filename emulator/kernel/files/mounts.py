"""What of the guest's tree is the emulator's own: /proc, and a few names in /dev.

Rule: with the host's own root only the names that depend on the process are ours; inside another root the memory
devices are too, because it need not have them.
Sources: man 4 tty, man 4 pts, man 5 proc.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description, VirtualStat
from emulator.kernel.files.devices import NAMES, device_stat, open_device
from emulator.kernel.files.procfs import ProcRoot
from emulator.kernel.files.tty import HostTty, PtyMaster, ptys_of
from emulator.kernel.files.virtual import DT_CHR, DT_DIR, DT_LNK, MagicLink, Node, VirtualDirectory, VirtualLink
from emulator.kernel.host_handles import HostDirectory, HostFd

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task

PTMX = b"/dev/ptmx"
Maker = Callable[["Task"], Node]


class DeviceNode(Node):
    """A memory device inside a root that has none."""

    __slots__ = ("minor",)

    def __init__(self, minor: int, parent: Node | None) -> None:
        name = NAMES[minor]
        super().__init__(name if parent is None else name[5:], stat.S_IFCHR | 0o666, parent)
        self.minor = minor

    def stat(self, t: Task) -> VirtualStat:
        return device_stat(self.minor)

    def open(self, t: Task, flags: int) -> Description:
        device = open_device(t.kernel.host, 0x100 | self.minor, flags & ~(O.CREAT | O.TRUNC | O.NOCTTY))
        if device is None:
            raise LinuxError(E.ENXIO)
        return device


class TtyNode(Node):
    """/dev/tty: the caller's controlling terminal."""

    __slots__ = ()

    def __init__(self, parent: Node | None) -> None:
        super().__init__(b"/dev/tty" if parent is None else b"tty", stat.S_IFCHR | 0o666, parent)

    def stat(self, t: Task) -> VirtualStat:
        return VirtualStat(self.mode, 11, 5, st_rdev=0x500)

    def open(self, t: Task, flags: int) -> Description:
        return t.kernel.vfs.controlling_tty(t, flags & ~(O.CREAT | O.TRUNC | O.NOCTTY))


class HostTtyNode(Node):
    """A terminal of the host's that a root of the guest's own shows: the pty multiplexer, a pty of the guest's."""

    __slots__ = ("_host_path",)

    def __init__(self, name: bytes, parent: Node | None, host_path: bytes) -> None:
        super().__init__(name, stat.S_IFCHR | 0o666, parent)
        self._host_path = host_path

    def stat(self, t: Task) -> VirtualStat:
        found = t.kernel.host.stat(self._host_path)
        return VirtualStat(
            found.st_mode, found.st_ino, found.st_dev, st_uid=found.st_uid, st_gid=found.st_gid, st_rdev=found.st_rdev
        )

    def open(self, t: Task, flags: int) -> Description:
        kept = flags & ~(O.CREAT | O.EXCL | O.NOCTTY | O.TRUNC | O.CLOEXEC)
        holder = HostFd(t.kernel.host.open(self._host_path, flags & O.ACCMODE | O.NONBLOCK | O.NOCTTY | O.CLOEXEC))
        walker = t.kernel.vfs.walker
        if self._host_path == PTMX:
            return PtyMaster(t, walker, holder.take(), kept)
        return HostTty(walker, holder.take(), kept)


class PtsDirectory(VirtualDirectory):
    """/dev/pts of a root of the guest's own: the ptys the guest has made."""

    __slots__ = ()

    def __init__(self, parent: Node | None) -> None:
        super().__init__(b"/dev/pts" if parent is None else b"pts", stat.S_IFDIR | 0o755, parent)

    def lookup(self, t: Task, name: bytes) -> Node | None:
        if name == b"ptmx":
            return HostTtyNode(name, self, PTMX)
        if name not in (b"%d" % number for number in ptys_of(t.kernel)):
            return None
        return HostTtyNode(name, self, b"/dev/pts/" + name)

    def entries(self, t: Task) -> Iterable[tuple[bytes, int]]:
        yield b"ptmx", DT_CHR
        for number in sorted(ptys_of(t.kernel)):
            yield b"%d" % number, DT_CHR


class SharedMemoryLink(MagicLink):
    """/dev/shm of a root that has none: a directory of the machine's own, which ends with it."""

    __slots__ = ()

    def __init__(self, parent: Node | None) -> None:
        super().__init__(b"/dev/shm" if parent is None else b"shm", parent)

    def target(self, t: Task) -> bytes:
        return self.path()

    def jump(self, t: Task) -> HostDirectory:
        found = t.kernel.extensions.get("dev_shm")
        if not isinstance(found, HostDirectory):
            found = t.kernel.extensions["dev_shm"] = t.kernel.host.scratch_directory()
        return found


class TextLink(VirtualLink):
    """A symbolic link with a fixed text."""

    __slots__ = ("_text",)

    def __init__(self, name: bytes, parent: Node | None, text: bytes) -> None:
        super().__init__(name, parent)
        self._text = text

    def target(self, t: Task) -> bytes:
        return self._text


_LINKS = {
    b"fd": b"/proc/self/fd",
    b"stdin": b"/proc/self/fd/0",
    b"stdout": b"/proc/self/fd/1",
    b"stderr": b"/proc/self/fd/2",
}


class DevRoot(VirtualDirectory):
    """/dev of a root that has none."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(b"/dev", stat.S_IFDIR | 0o755, None)

    def lookup(self, t: Task, name: bytes) -> Node | None:
        match name:
            case b"tty":
                return TtyNode(self)
            case b"ptmx":
                return HostTtyNode(name, self, PTMX)
            case b"pts":
                return PtsDirectory(self)
            case b"shm":
                return SharedMemoryLink(self)
        if name in _LINKS:
            return TextLink(name, self, _LINKS[name])
        for minor, path in NAMES.items():
            if path == b"/dev/" + name:
                return DeviceNode(minor, self)
        return None

    def entries(self, t: Task) -> Iterable[tuple[bytes, int]]:
        yield b"tty", DT_CHR
        yield b"ptmx", DT_CHR
        yield b"pts", DT_DIR
        yield b"shm", DT_LNK
        for name in _LINKS:
            yield name, DT_LNK
        for path in NAMES.values():
            yield path[5:], DT_CHR


def _link(name: bytes) -> Maker:
    return lambda t: TextLink(b"/dev/" + name, None, _LINKS[name])


def _device(minor: int) -> Maker:
    return lambda t: DeviceNode(minor, None)


def system_mounts(*, jailed: bool, has_dev: bool, has_shm: bool) -> Mapping[bytes, Mapping[bytes, Maker]]:
    """The emulator's names, by the directory they are in."""
    top: dict[bytes, Maker] = {b"proc": lambda t: ProcRoot()}
    if jailed and not has_dev:
        top[b"dev"] = lambda t: DevRoot()
        return {b"/": top}
    devices: dict[bytes, Maker] = {b"tty": lambda t: TtyNode(None)}
    for name in _LINKS:
        devices[name] = _link(name)
    if jailed:
        for minor, path in NAMES.items():
            devices[path[5:]] = _device(minor)
        devices[b"ptmx"] = lambda t: HostTtyNode(PTMX, None, PTMX)
        devices[b"pts"] = lambda t: PtsDirectory(None)
        if not has_shm:
            devices[b"shm"] = lambda t: SharedMemoryLink(None)
    return {b"/": top, b"/dev": devices}
