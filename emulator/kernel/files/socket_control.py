"""Control messages: between the guest's cmsghdr list and the host's.

Rule: only descriptors and process ids are translated; every other message is bytes.  A descriptor for a guest peer
travels as a token (files/network.py), so the receiver gets the very description, whatever it is; one for a host peer
travels as its host descriptor.  Source: cmsg(3), unix(7), net/core/scm.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import F
from emulator.abi.sockets import (
    SCM_CREDENTIALS,
    SCM_MAX_FD,
    SCM_PIDFD,
    SCM_RIGHTS,
    SOL_RDS,
    SOL_SOCKET,
    UCRED,
    AddressFamily,
    Msg,
    SocketOption,
)
from emulator.errors import LinuxError
from emulator.kernel.credentials import CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN
from emulator.kernel.files.socket import SocketDescription

if TYPE_CHECKING:
    from emulator.kernel.files.description import Description
    from emulator.kernel.tasks import Task

_HOST_HEADER = struct.Struct("@Nii")


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """One cmsg without its header."""

    level: int
    type: int
    data: bytes


def parse(control: bytes, pointer_size: int, byteorder: str) -> Iterator[ControlMessage]:
    """The guest's list; EINVAL where CMSG_OK says no."""
    header = pointer_size + 8
    order = "<" if byteorder == "little" else ">"
    at = 0
    while len(control) - at >= header:
        length = int.from_bytes(control[at : at + pointer_size], "little" if order == "<" else "big")
        if length < header or length > len(control) - at:
            raise LinuxError(E.EINVAL)
        level, kind = struct.unpack_from(order + "ii", control, at + pointer_size)
        yield ControlMessage(level, kind, control[at + header : at + length])
        at += -(-length // pointer_size) * pointer_size


def pack(messages: list[ControlMessage]) -> bytes:
    """The host's list."""
    parts = []
    for message in messages:
        whole = _HOST_HEADER.pack(_HOST_HEADER.size + len(message.data), message.level, message.type) + message.data
        parts.append(whole.ljust(-(-len(whole) // 8) * 8, b"\0"))
    return b"".join(parts)


def parse_host(control: bytes) -> Iterator[ControlMessage]:
    """What the host's recvmsg wrote."""
    at = 0
    while len(control) - at >= _HOST_HEADER.size:
        length, level, kind = _HOST_HEADER.unpack_from(control, at)
        if length < _HOST_HEADER.size:
            return
        yield ControlMessage(level, kind, control[at + _HOST_HEADER.size : at + length])
        at += -(-length // 8) * 8


@dataclass(slots=True)
class Outgoing:
    """Control data ready for the host; `close` frees what was made for it."""

    control: bytes
    tokens: list[int]
    socket: SocketDescription

    def close(self) -> None:
        """The message is sent, or failed: our copies of the tokens go."""
        for token in self.tokens:
            self.socket.network.host.close(token)
        self.socket.network.sweep()


def translate_outgoing(t: Task, socket: SocketDescription, control: bytes, to_guest: bool) -> Outgoing:
    """Check and translate what the guest sends; EBADF, EINVAL, EPERM, ESRCH as __scm_send."""
    memory = t.memory
    messages: list[ControlMessage] = []
    tokens: list[int] = []
    network = socket.network
    unix = socket.family == AddressFamily.AF_UNIX
    try:
        for message in parse(control, memory.pointer_size, memory.byteorder):
            if message.level == SOL_RDS:
                raise LinuxError(E.EINVAL)  # RDMA messages name memory, which would be the emulator's
            if message.level != SOL_SOCKET or message.type not in (SCM_RIGHTS, SCM_CREDENTIALS):
                network.check_ancillary(message.level, message.type, message.data)
                messages.append(message)
            elif message.type == SCM_RIGHTS:
                if not unix:
                    raise LinuxError(E.EINVAL)
                count = len(message.data) // 4
                if count > SCM_MAX_FD:
                    raise LinuxError(E.EINVAL)
                numbers = struct.unpack_from(
                    f"<{count}i" if memory.byteorder == "little" else f">{count}i", message.data
                )
                descriptions = [t.fds.get_raw(number) for number in numbers]
                fds = [_carrier(socket, description, to_guest, tokens) for description in descriptions]
                messages.append(ControlMessage(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"={len(fds)}i", *fds)))
            else:
                messages.append(ControlMessage(SOL_SOCKET, SCM_CREDENTIALS, _credentials(t, socket, message.data)))
    except LinuxError:
        for token in tokens:
            network.host.close(token)
        network.sweep()
        raise
    return Outgoing(pack(messages), tokens, socket)


def _carrier(socket: SocketDescription, description: Description, to_guest: bool, tokens: list[int]) -> int:
    if to_guest:
        token = socket.network.send_description(description)
        tokens.append(token)
        return token
    return description.need_host_fd(E.EINVAL)


def _credentials(t: Task, socket: SocketDescription, data: bytes) -> bytes:
    if len(data) != UCRED.size:
        raise LinuxError(E.EINVAL)
    pid, uid, gid = struct.unpack("<iII" if t.memory.byteorder == "little" else ">iII", data)
    mine = t.credentials
    right = (
        (pid == t.group.tgid or mine.capable(CAP_SYS_ADMIN))
        and (uid in (mine.ruid, mine.euid, mine.suid) or mine.capable(CAP_SETUID))
        and (gid in (mine.rgid, mine.egid, mine.sgid) or mine.capable(CAP_SETGID))
    )
    if not right:
        raise LinuxError(E.EPERM)
    if pid != t.group.tgid and t.kernel.tasks.find(pid) is None:
        raise LinuxError(E.ESRCH)
    return UCRED.pack(socket.network.host.pid(), uid, gid)


def explicit_pid(t: Task, control: bytes) -> int:
    """The guest pid an outgoing message claims: its SCM_CREDENTIALS, or the sender's own."""
    for message in parse(control, t.memory.pointer_size, t.memory.byteorder):
        if message.level == SOL_SOCKET and message.type == SCM_CREDENTIALS and len(message.data) == UCRED.size:
            return int(struct.unpack_from("<i" if t.memory.byteorder == "little" else ">i", message.data)[0])
    return t.group.tgid


def note_sender(socket: SocketDescription, target: SocketDescription, pid: int) -> None:
    """Remember who sent, for the receiver's SCM_CREDENTIALS."""
    if socket.is_stream:
        target.sender_pids.clear()
    target.sender_pids.append(pid)


def receiver(socket: SocketDescription) -> SocketDescription | None:
    """The guest socket a connected one sends to."""
    return socket.peer() if socket.peer is not None else None


def sender_pid(socket: SocketDescription, flags: int) -> int:
    """Which guest process sent the AF_UNIX message just received."""
    if not socket.sender_pids:
        return socket.peer_pid or 0
    if flags & Msg.PEEK or socket.is_stream:
        return socket.sender_pids[0]
    return socket.sender_pids.popleft()


def translate_incoming(t: Task, socket: SocketDescription, control: bytes, room: int, flags: int) -> tuple[bytes, int]:
    """The guest's list in at most `room` bytes, and MSG_CTRUNC if not everything fitted."""
    memory = t.memory
    order = "<" if memory.byteorder == "little" else ">"
    pointer = memory.pointer_size
    header = pointer + 8
    result = bytearray()
    truncated = 0
    for message in parse_host(control):
        data = message.data
        if message.level == SOL_SOCKET and message.type == SCM_RIGHTS:
            fits = (room - len(result) - header) // 4
            data, dropped = _install(t, socket, data, fits, bool(flags & Msg.CMSG_CLOEXEC), order)
            if dropped:
                truncated = Msg.CTRUNC
            if not data:
                continue
        elif message.level == SOL_SOCKET and message.type == SCM_CREDENTIALS and len(data) == UCRED.size:
            pid, uid, gid = UCRED.unpack(data)
            guest_pid = sender_pid(socket, flags) if socket.network.is_ours(pid) else 0
            data = struct.pack(order + "iII", guest_pid, uid, gid)
        elif message.level == SOL_SOCKET and message.type == SCM_PIDFD and len(data) == 4:
            socket.network.host.close(struct.unpack("=i", data)[0])
            continue
        whole = (header + len(data)).to_bytes(pointer, "little" if order == "<" else "big")
        whole += struct.pack(order + "ii", message.level, message.type) + data
        if len(result) + len(whole) > room:
            whole = whole[: room - len(result)]
            truncated = Msg.CTRUNC
        result += whole
        padding = -len(whole) % pointer
        result += b"\0" * min(padding, room - len(result))
    return bytes(result), truncated


def _install(
    t: Task, socket: SocketDescription, data: bytes, fits: int, cloexec: bool, order: str
) -> tuple[bytes, bool]:
    """Give the received descriptions numbers; those that don't fit, or past RLIMIT_NOFILE, are dropped."""
    network = socket.network
    numbers: list[int] = []
    dropped = False
    for fd in struct.unpack(f"={len(data) // 4}i", data):
        description = network.receive_description(fd)
        if description is None:
            description = adopt(t, socket, fd)
        else:
            network.host.close(fd)
        if len(numbers) >= fits:
            dropped = True
        else:
            try:
                numbers.append(t.fds.allocate(description, cloexec=cloexec))
                continue
            except LinuxError:
                dropped = True
        if description.references == 0:
            description.close()
    network.sweep()
    return struct.pack(order + f"{len(numbers)}i", *numbers), dropped


def adopt(t: Task, socket: SocketDescription, fd: int) -> Description:
    """Make a description of a host descriptor that a host process passed."""
    network = socket.network
    try:
        family = int.from_bytes(network.host.option(fd, SOL_SOCKET, SocketOption.SO_DOMAIN), "little")
    except LinuxError:
        flags = t.kernel.host.fcntl(fd, F.GETFL)
        return t.kernel.vfs.adopt(fd, flags if isinstance(flags, int) else 0)
    kind = int.from_bytes(network.host.option(fd, SOL_SOCKET, SocketOption.SO_TYPE), "little")
    protocol = int.from_bytes(network.host.option(fd, SOL_SOCKET, SocketOption.SO_PROTOCOL), "little")
    adopted = SocketDescription(network, fd, family, kind, protocol, 0, 0)
    adopted.shared = True
    return adopted
