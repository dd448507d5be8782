"""mount(2), umount(2) and what else changes the tree.

Rule: what the guest mounts is mounted in a mount namespace of the emulator's own, which no other process sees and
which ends with it; without one (not root, or a --root of the guest's own) nobody mounts anything.
Sources: man 2 mount, umount, pivot_root, swapon, acct, quotactl; fs/namespace.c (order of checks).
"""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.abi.fcntl import AT
from emulator.abi.memory import PAGE_SIZE
from emulator.errors import LinuxError
from emulator.kernel.credentials import CAP_SYS_ADMIN
from emulator.kernel.host_handles import HostDirectory
from emulator.kernel.paths import HostPlace, OpenPlace
from emulator.kernel.tasks import Task
from emulator.syscalls.files import path_at
from emulator.syscalls.registry import Int, Ptr, Size, UInt, syscall

MS_REMOUNT, MS_BIND, MS_MOVE = 0x20, 0x1000, 0x2000
MNT_KNOWN, UMOUNT_NOFOLLOW = 15, 8
NEVER = frozenset((b"proc",))  # the guest's /proc is the emulator's; the host's is none of its business


def _may_mount(t: Task) -> None:
    if not t.credentials.capable(CAP_SYS_ADMIN) or t.fs.jailed or not t.kernel.host.mounts_are_own:
        raise LinuxError(E.EPERM)


def _host_path(t: Task, path: bytes, *, follow: bool) -> bytes:
    """A mounted-on directory as the host finds it, without a descriptor that would keep it busy."""
    place = t.kernel.vfs.walker.resolve(t, AT.FDCWD, path, follow=follow)
    if not isinstance(place, HostPlace):
        raise LinuxError(E.ENOENT if isinstance(place, OpenPlace) else E.EINVAL)
    t.kernel.host.stat(place.name, place.dir_fd, follow)
    return place.name if place.dir_fd is None else b"/proc/self/fd/%d/%s" % (place.dir_fd, place.name)


def _text(t: Task, address: int) -> bytes:
    return t.memory.read_cstring(address, PAGE_SIZE, E.EINVAL) if address else b""


@syscall("mount")
def mount(t: Task, source: Ptr, target: Ptr, kind: Ptr, flags: Size, data: Ptr) -> None:
    """mount(2)."""
    kind_text, source_text, options = _text(t, kind), _text(t, source), _text(t, data)
    target_path = _host_path(t, path_at(t, target), follow=True)
    _may_mount(t)
    if kind_text in NEVER:
        raise LinuxError(E.EPERM)
    if flags & (MS_BIND | MS_MOVE) and not flags & MS_REMOUNT:
        if not source_text:
            raise LinuxError(E.EINVAL)
        source_text = _host_path(t, source_text, follow=True)
    elif b"/" in source_text:
        pin = t.kernel.vfs.pinned(t, source_text)
        source_text = pin.path if pin.path.startswith(b"/dev/") else source_text
    cwd = t.fs.cwd if isinstance(t.fs.cwd, HostDirectory) else t.fs.root
    t.kernel.host.mount(
        source_text or None, target_path, kind_text or None, flags & 0xFFFFFFFF, options or None, cwd.fd
    )


@syscall("umount2")
def umount2(t: Task, target: Ptr, flags: Int) -> None:
    """umount(2)."""
    if flags & ~MNT_KNOWN:
        raise LinuxError(E.EINVAL)
    path = _host_path(t, path_at(t, target), follow=not flags & UMOUNT_NOFOLLOW)
    _may_mount(t)
    t.kernel.host.umount(path, flags)


def _refuse(t: Task) -> None:
    """What these change is the whole machine's: root or not, nobody does it from here."""
    raise LinuxError(E.EPERM)


@syscall("pivot_root")
def pivot_root(t: Task, new_root: Ptr, put_old: Ptr) -> None:
    """pivot_root(2)."""
    _refuse(t)


@syscall("swapon")
def swapon(t: Task, path: Ptr, flags: Int) -> None:
    """swapon(2)."""
    _refuse(t)


@syscall("swapoff")
def swapoff(t: Task, path: Ptr) -> None:
    """swapon(2)."""
    _refuse(t)


@syscall("acct")
def acct(t: Task, path: Ptr) -> None:
    """acct(2)."""
    _refuse(t)


@syscall("quotactl")
def quotactl(t: Task, cmd: UInt, special: Ptr, ident: UInt, addr: Ptr) -> None:
    """quotactl(2)."""
    _refuse(t)


@syscall("fsopen", "fsmount", "open_tree", "move_mount", "fspick", "fsconfig", "mount_setattr")
def new_mount_calls(t: Task) -> None:
    """The newer mount calls (fsopen(2) and its family)."""
    _refuse(t)
