"""Socket options: bytes for the host, but for those whose value only the emulator knows.

Rule: a bad guest pointer is given to the host as a bad pointer, so that it is noticed in the host's order of checks.
Source: getsockopt(2), socket(7), unix(7); net/core/sock.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.memory import Access
from emulator.abi.sockets import (
    IP_HDRINCL,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPV6_HDRINCL,
    LOOPBACK_INDEX,
    NETFILTER_REPLACE,
    SO_BINDTODEVICE,
    SO_BINDTOIFINDEX,
    SOL_RDS,
    SOL_SOCKET,
    SOL_XDP,
    UCRED,
    AddressFamily,
    SocketOption,
)
from emulator.errors import LinuxError
from emulator.kernel.files.socket import SocketDescription
from emulator.kernel.host_errno import by_number
from emulator.kernel.host_sockets import BAD_ADDRESS, Block

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task

_MAX_VALUE = 1 << 20
_TIMEOUTS = {
    SocketOption.SO_RCVTIMEO: "receive_timeout_ns",
    SocketOption.SO_RCVTIMEO_NEW: "receive_timeout_ns",
    SocketOption.SO_SNDTIMEO: "send_timeout_ns",
    SocketOption.SO_SNDTIMEO_NEW: "send_timeout_ns",
}
_FILTERS = (SocketOption.SO_ATTACH_FILTER, SocketOption.SO_ATTACH_REUSEPORT_CBPF)
_BPF_FDS = (SocketOption.SO_ATTACH_BPF, SocketOption.SO_ATTACH_REUSEPORT_EBPF)
_MAX_FILTER = 4096
_LEVELS_WITH_POINTERS = frozenset((SOL_RDS, SOL_XDP))
_OWN_HEADERS = frozenset(((IPPROTO_IP, IP_HDRINCL), (IPPROTO_IPV6, IPV6_HDRINCL)))


def _writable(t: Task, address: int, length: int) -> bool:
    try:
        t.memory.buffers(address, length, Access.WRITE)
    except LinuxError:
        return False
    return True


def _readable_prefix(t: Task, address: int, length: int) -> bytes:
    try:
        return t.memory.read(address, length)
    except LinuxError:
        pass
    try:
        return t.memory.read(address, 4) if length > 4 else b""
    except LinuxError:
        return b""


def set_option(t: Task, socket: SocketDescription, level: int, name: int, value: int, length: int) -> None:
    """setsockopt(2)."""
    if length < 0:
        raise LinuxError(E.EINVAL)
    data = _readable_prefix(t, value, min(length, _MAX_VALUE)) if value and length else b""
    if level == SOL_SOCKET:
        if name in _BPF_FDS:
            raise LinuxError(E.EBADF)
        if name in _FILTERS:
            _set_filter(t, socket, name, data)
            return
        if socket.network.confined and name in (SO_BINDTODEVICE, SO_BINDTOIFINDEX):
            index = int.from_bytes(data[:4], "little") if name == SO_BINDTOIFINDEX else 0
            if index not in (0, LOOPBACK_INDEX) or (name == SO_BINDTODEVICE and data.rstrip(b"\0") not in (b"", b"lo")):
                raise LinuxError(E.ENODEV)
            return
    elif (level in (IPPROTO_IP, IPPROTO_IPV6) and name in NETFILTER_REPLACE) or level in _LEVELS_WITH_POINTERS:
        raise LinuxError(E.ENOPROTOOPT)  # the kernel would write where a pointer inside the value says
    elif socket.network.confined and (level, name) in _OWN_HEADERS:
        raise LinuxError(E.EPERM)
    block = Block(data.ljust(min(length, _MAX_VALUE), b"\0"))
    address = block.address if data else BAD_ADDRESS if value else 0
    socket.network.host.do("setsockopt", socket.fd, level, name, address, length)
    if level == SOL_SOCKET:
        _note(socket, name, data)


def _note(socket: SocketDescription, name: int, data: bytes) -> None:
    """Keep what the host was told, where the emulator acts on it."""
    if name == SocketOption.SO_PASSCRED:
        socket.pass_credentials = any(data[:4])
        socket.learn_name()
    elif name == SocketOption.SO_LINGER:
        socket.lingers = any(data[:4]) and any(data[4:8])
    elif name in _TIMEOUTS:
        seconds, microseconds = struct.unpack_from("=qq", data)
        timeout: int | None = (seconds * 1_000_000 + microseconds) * 1000
        if seconds < 0:
            timeout = 0
        elif not seconds and not microseconds:
            timeout = None
        setattr(socket, _TIMEOUTS[SocketOption(name)], timeout)


def _set_filter(t: Task, socket: SocketDescription, name: int, data: bytes) -> None:
    """SO_ATTACH_FILTER: struct sock_fprog holds a pointer to the program."""
    pointer = t.memory.pointer_size
    if len(data) != 2 * pointer:
        raise LinuxError(E.EINVAL if data else E.EFAULT)
    order = t.memory.byteorder
    count = int.from_bytes(data[:2], "little" if order == "little" else "big")
    where = int.from_bytes(data[pointer:], "little" if order == "little" else "big")
    if not 0 < count <= _MAX_FILTER:
        raise LinuxError(E.EINVAL)
    code = Block(t.memory.read(where, count * 8))
    program = struct.pack("@HP", count, code.address)
    socket.network.host.set_option(socket.fd, SOL_SOCKET, name, program)


def get_option(t: Task, socket: SocketDescription, level: int, name: int, value: int, length_pointer: int) -> None:
    """getsockopt(2)."""
    if level == SOL_SOCKET and name == SocketOption.SO_PEERPIDFD:
        raise LinuxError(E.ENODATA)
    host = socket.network.host
    try:
        room = t.memory.read_s32(length_pointer)
    except LinuxError:
        scratch = Block(256)
        host.do("getsockopt", socket.fd, level, name, scratch.address, BAD_ADDRESS)
        raise
    size = max(0, min(room, _MAX_VALUE))
    length = Block(struct.pack("=i", room if room < 0 else size))
    block = Block(size)
    good = _writable(t, value, size)
    host.do("getsockopt", socket.fd, level, name, block.address if good else BAD_ADDRESS, length.address)
    used = int(struct.unpack("=i", length.bytes())[0])
    data = block.bytes(max(0, min(used, size)))
    if level == SOL_SOCKET:
        data = _translate(t, socket, name, data)
    t.memory.write(value, data)
    t.memory.write_s32(length_pointer, used)


def _translate(t: Task, socket: SocketDescription, name: int, data: bytes) -> bytes:
    """Values that hold a host's number."""
    if name == SocketOption.SO_ERROR and len(data) == 4:
        number = int.from_bytes(data, "little")
        guest = t.arch.errno[by_number(number)] if number else 0
        return guest.to_bytes(4, "little" if t.memory.byteorder == "little" else "big")
    if name == SocketOption.SO_PEERCRED and socket.family == AddressFamily.AF_UNIX and len(data) == UCRED.size:
        pid, uid, gid = UCRED.unpack(data)
        if socket.network.is_ours(pid):
            pid = socket.peer_pid if socket.peer_pid is not None else t.group.tgid
        elif pid:
            pid = 0  # a host process has no number in the guest's PID namespace
        return struct.pack("<iII" if t.memory.byteorder == "little" else ">iII", pid, uid, gid)
    return data
