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
from emulator.kernel.files.virtual import DT_CHR, DT_LNK, Node, VirtualDirectory, VirtualLink

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task

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
        if name == b"tty":
            return TtyNode(self)
        if name in _LINKS:
            return TextLink(name, self, _LINKS[name])
        for minor, path in NAMES.items():
            if path == b"/dev/" + name:
                return DeviceNode(minor, self)
        return None

    def entries(self, t: Task) -> Iterable[tuple[bytes, int]]:
        yield b"tty", DT_CHR
        for name in _LINKS:
            yield name, DT_LNK
        for path in NAMES.values():
            yield path[5:], DT_CHR


def _link(name: bytes) -> Maker:
    return lambda t: TextLink(b"/dev/" + name, None, _LINKS[name])


def _device(minor: int) -> Maker:
    return lambda t: DeviceNode(minor, None)


def system_mounts(*, jailed: bool, has_dev: bool) -> Mapping[bytes, Mapping[bytes, Maker]]:
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
    return {b"/": top, b"/dev": devices}
