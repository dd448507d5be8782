"""AF_UNIX paths: a name in the guest's root, and the bytes the host is given for it.

Rule: without a root of its own the guest's bytes reach the host unchanged (a relative path from the guest's current
directory), so host and guest processes see each other's sockets by the same names.  Under `--root` the host is given
the verified place instead, and `Network` keeps what the guest called it.  Source: unix(7), "Pathname sockets".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import AT
from emulator.abi.sockets import UNIX_PATH_MAX, AddressFamily
from emulator.errors import LinuxError
from emulator.kernel.files.network import HostAddress
from emulator.kernel.files.socket import SocketDescription
from emulator.kernel.paths import HostPlace, VirtualPlace

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task

_FAMILY = AddressFamily.AF_UNIX.to_bytes(2, "little")


def path_of(socket: SocketDescription, address: bytes) -> bytes | None:
    """The path in a sockaddr_un; None for every other address, the host then says what is wrong with it."""
    if socket.family != AddressFamily.AF_UNIX or address[:2] != _FAMILY or not 2 < len(address) <= 2 + UNIX_PATH_MAX:
        return None
    path = address[2:].split(b"\0", 1)[0]
    return path or None


def target_address(t: Task, socket: SocketDescription, address: bytes) -> HostAddress:
    """The address of connect(2) and sendto(2): it names a socket that is there."""
    path = path_of(socket, address)
    if path is None:
        if socket.family == AddressFamily.AF_UNIX and len(address) > 2:
            socket.network.check_abstract(address)
            return HostAddress(address, key=address)
        return HostAddress(address)
    place = t.kernel.vfs.walker.resolve(t, AT.FDCWD, path, follow=True)
    if isinstance(place, VirtualPlace) and place.node is None:
        raise LinuxError(E.ENOENT)
    if not isinstance(place, HostPlace):
        raise LinuxError(E.ECONNREFUSED)
    key = _identity(t, place, follow=True)
    data = address if place.direct and not _rewritten(place, path) else _FAMILY + place.name
    return HostAddress(data, place.dir_fd, key, place.holder)


def bind_path(t: Task, socket: SocketDescription, address: bytes, path: bytes) -> None:
    """bind(2) to a path: EADDRINUSE if anything has that name."""
    place = t.kernel.vfs.walker.resolve(t, AT.FDCWD, path, follow=False)
    if not isinstance(place, HostPlace):
        raise LinuxError(E.EADDRINUSE if isinstance(place, VirtualPlace) and place.node is not None else E.EPERM)
    network = socket.network
    if place.direct and not _rewritten(place, path):
        socket.bind(t, HostAddress(address, place.dir_fd, None, place.holder))
    else:
        host_path = b"/proc/self/fd/%d/%s" % (place.dir_fd or 0, place.name)
        if place.dir_fd is None:
            host_path = place.name
        if len(host_path) < UNIX_PATH_MAX:
            socket.bind(t, HostAddress(_FAMILY + host_path))
        else:
            host_path = place.name
            socket.bind(t, HostAddress(_FAMILY + host_path, place.dir_fd))
        socket.host_path = host_path
        socket.directory = place.holder  # keeps the number in host_path this directory's own
        network.remember(host_path, _FAMILY + path + b"\0")
    key = _identity(t, place, follow=False)
    if key is not None:
        socket.unix_key = key
        network.enter(key, socket)


def _rewritten(place: HostPlace, path: bytes) -> bool:
    """A sysroot moved the path."""
    return place.name != path


def _identity(t: Task, place: HostPlace, *, follow: bool) -> object:
    try:
        status = t.kernel.host.stat(place.name, place.dir_fd, follow)
    except LinuxError:
        return None
    return status.st_dev, status.st_ino
