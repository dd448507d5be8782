"""ioctl(2) on sockets: those that carry plain bytes go to the host, those about blocking and owners stay here.

Rule: the host gets no request it has not been looked up for: the kernel would take a pointer in the guest's bytes for
one into the emulator's own memory, or write more than there is room for.
Source: ioctl_list(2), netdevice(7), tcp(7), udp(7), unix(7).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.sockets import (
    ARP_REQUESTS,
    ARPREQ_SIZE,
    FIOGETOWN,
    FIONBIO,
    FIONREAD,
    FIOSETOWN,
    IFREQ_SIZE,
    INTERFACE_GETTERS,
    INTERFACE_SETTERS,
    LOOPBACK_INDEX,
    SIOCADDRT,
    SIOCATMARK,
    SIOCDELRT,
    SIOCETHTOOL,
    SIOCGIFCONF,
    SIOCGIFNAME,
    SIOCGPGRP,
    SIOCGSTAMP_OLD,
    SIOCGSTAMPNS_OLD,
    SIOCSPGRP,
    TIOCOUTQ,
)
from emulator.errors import LinuxError
from emulator.kernel.host_sockets import Block

if TYPE_CHECKING:
    from emulator.kernel.files.socket import SocketDescription
    from emulator.kernel.tasks import Task

_INTEGERS = frozenset((FIONREAD, TIOCOUTQ, SIOCATMARK))
_STAMPS = frozenset((SIOCGSTAMP_OLD, SIOCGSTAMPNS_OLD))
_MAX_CONF = 1 << 16


def socket_ioctl(socket: SocketDescription, t: Task, request: int, argument: int) -> int:
    """Decode and do; ENOTTY for what no socket knows."""
    memory = t.memory
    host = socket.network.host
    if request == FIONBIO:
        on = memory.read_s32(argument)
        socket.set_flags(socket.flags | O.NONBLOCK if on else socket.flags & ~O.NONBLOCK)
    elif request in (FIOSETOWN, SIOCSPGRP):
        socket.async_owner = memory.read_s32(argument)
    elif request in (FIOGETOWN, SIOCGPGRP):
        memory.write_s32(argument, socket.async_owner)
    elif request in _INTEGERS:
        memory.write(argument, host.ioctl(socket.fd, request, b"\0" * 4))
    elif request in _STAMPS:
        memory.write(argument, host.ioctl(socket.fd, request, b"\0" * 16))
    elif request == SIOCGIFCONF:
        _interfaces(socket, t, argument)
    elif request == SIOCGIFNAME or request in INTERFACE_GETTERS or request in INTERFACE_SETTERS:
        block = memory.read(argument, IFREQ_SIZE)
        if socket.network.confined:
            _confine(request, block)
        memory.write(argument, host.ioctl(socket.fd, request, block))
    elif request in ARP_REQUESTS:
        if socket.network.confined:
            raise LinuxError(E.ENXIO)
        memory.write(argument, host.ioctl(socket.fd, request, memory.read(argument, ARPREQ_SIZE)))
    elif request in (SIOCADDRT, SIOCDELRT):
        raise LinuxError(E.EPERM)
    elif request == SIOCETHTOOL:
        raise LinuxError(E.EOPNOTSUPP)
    else:
        raise LinuxError(E.ENOTTY)
    return 0


def _confine(request: int, block: bytes) -> None:
    """Only lo is there, and it is not the guest's to change."""
    if request == SIOCGIFNAME:
        there = int.from_bytes(block[16:20], "little") == LOOPBACK_INDEX
    else:
        there = block[:16].split(b"\0", 1)[0].split(b":", 1)[0] == b"lo"
    if not there:
        raise LinuxError(E.ENODEV)
    if request in INTERFACE_SETTERS:
        raise LinuxError(E.EPERM)


def _interfaces(socket: SocketDescription, t: Task, argument: int) -> None:
    """SIOCGIFCONF: struct ifconf holds a pointer, so the list goes through a block of ours."""
    memory = t.memory
    codes = "i4xP" if memory.pointer_size == 8 else "iP"
    length, buffer = memory.read_struct(argument, codes)
    if length < 0:
        raise LinuxError(E.EINVAL)
    room = Block(min(length, _MAX_CONF) if buffer else 0)
    header = struct.pack("@iP", room.size, room.address if buffer else 0)
    used = int(struct.unpack_from("@i", socket.network.host.ioctl(socket.fd, SIOCGIFCONF, header))[0])
    if buffer:
        entries = room.bytes(used)
        if socket.network.confined:
            parts = [entries[at : at + IFREQ_SIZE] for at in range(0, used, IFREQ_SIZE)]
            entries = b"".join(part for part in parts if part.startswith(b"lo\0"))
            used = len(entries)
        memory.write(buffer, entries)
    memory.write_s32(argument, used)
