"""Sockets: socket(2), bind(2), connect(2), accept(2), send(2), recv(2) and their kin, decoded.

Rule: the checks come in the order of net/socket.c: the descriptor (EBADF, ENOTSOCK), then lengths (EINVAL), then
pointers (EFAULT), then the protocol's own, which are the host's.
"""

from __future__ import annotations

from dataclasses import dataclass

from emulator.abi.errno import E
from emulator.abi.memory import Access
from emulator.abi.sockets import (
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_TYPE_MASK,
    SOCKADDR_STORAGE_SIZE,
    UIO_MAXIOV,
    AddressFamily,
    Msg,
)
from emulator.errors import LinuxError
from emulator.kernel.files.iovecs import GuestIovec
from emulator.kernel.files.netlink import NetlinkDescription
from emulator.kernel.files.network import HostAddress, network_of
from emulator.kernel.files.socket import Progress, SocketDescription, progress_of
from emulator.kernel.files.socket_control import (
    explicit_pid,
    note_sender,
    receiver,
    translate_incoming,
    translate_outgoing,
)
from emulator.kernel.files.socket_options import get_option, set_option
from emulator.kernel.files.unix_paths import bind_path, path_of, target_address
from emulator.kernel.tasks import Task
from emulator.kernel.waits import Block
from emulator.syscalls.registry import Fd, Int, Ptr, Size, SockLen, UInt, syscall

_MAX_CONTROL = 1 << 17
_OPTMEM_MAX = 131072


def socket_of(t: Task, fd: int) -> SocketDescription:
    """The socket behind a descriptor: EBADF, ENOTSOCK."""
    description = t.fds.get(fd)
    if not isinstance(description, SocketDescription):
        raise LinuxError(E.ENOTSOCK)
    return description


def read_sockaddr(t: Task, address: int, length: int) -> bytes:
    """move_addr_to_kernel(): EINVAL, EFAULT."""
    if not 0 <= length <= SOCKADDR_STORAGE_SIZE:
        raise LinuxError(E.EINVAL)
    return t.memory.read(address, length) if length else b""


def write_sockaddr(t: Task, data: bytes, address: int, length_pointer: int) -> None:
    """move_addr_to_user(): as much as fits, and always the true length."""
    room = t.memory.read_s32(length_pointer)
    count = min(room, len(data))
    if count < 0:
        raise LinuxError(E.EINVAL)
    t.memory.write(address, data[:count])
    t.memory.write_u32(length_pointer, len(data))


# -- making and naming ---------------------------------------------------------------------------------------------


@syscall("socket")
def socket(t: Task, family: Int, kind: Int, protocol: Int) -> int:
    """socket(2)."""
    flags = kind & ~SOCK_TYPE_MASK
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise LinuxError(E.EINVAL)
    network = network_of(t)
    kind &= SOCK_TYPE_MASK
    fd = network.host.socket(family, kind, protocol)
    network.restrict(fd, family, kind, protocol)
    restricted = family == AddressFamily.AF_NETLINK and network.confined
    make = NetlinkDescription if restricted else SocketDescription
    description = make(network, fd, family, kind, protocol, flags, t.group.tgid)
    return t.fds.allocate(description, cloexec=bool(flags & SOCK_CLOEXEC))


@syscall("socketpair")
def socketpair(t: Task, family: Int, kind: Int, protocol: Int, pair: Ptr) -> int:
    """socketpair(2)."""
    flags = kind & ~SOCK_TYPE_MASK
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise LinuxError(E.EINVAL)
    t.fds.lowest_free()
    t.memory.buffers(pair, 8, Access.WRITE)  # the kernel writes the numbers before it makes the sockets
    network = network_of(t)
    kind &= SOCK_TYPE_MASK
    host_fds = network.host.socketpair(family, kind, protocol)
    pid = t.group.tgid
    one, two = (SocketDescription(network, fd, family, kind, protocol, flags, pid) for fd in host_fds)
    one.meet(two)
    numbers = t.fds.allocate_pair(one, two, bool(flags & SOCK_CLOEXEC))
    t.memory.write_struct(pair, "ii", *numbers)
    return 0


@syscall("bind")
def bind(t: Task, fd: Fd, address: Ptr, length: SockLen) -> int:
    """bind(2)."""
    description = socket_of(t, fd)
    data = read_sockaddr(t, address, length)
    path = path_of(description, data)
    if path is not None:
        bind_path(t, description, data, path)
    else:
        description.bind(t, HostAddress(data))
    return 0


@syscall("listen")
def listen(t: Task, fd: Fd, backlog: Int) -> int:
    """listen(2)."""
    socket_of(t, fd).listen(t, backlog)
    return 0


@syscall("accept4")
def accept4(t: Task, fd: Fd, address: Ptr, length: Ptr, flags: Int) -> int:
    """accept4(2)."""
    listener = t.fds.get(fd)
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise LinuxError(E.EINVAL)
    t.fds.lowest_free()
    if not isinstance(listener, SocketDescription):
        raise LinuxError(E.ENOTSOCK)
    new, peer = listener.accept(t, flags)
    if address:
        try:
            write_sockaddr(t, peer, address, length)
        except LinuxError:
            new.close()
            raise
    return t.fds.allocate(new, cloexec=bool(flags & SOCK_CLOEXEC))


@syscall("accept")
def accept(t: Task, fd: Fd, address: Ptr, length: Ptr) -> int:
    """accept(2)."""
    return accept4(t, fd, address, length, 0)


@syscall("connect")
def connect(t: Task, fd: Fd, address: Ptr, length: SockLen) -> int:
    """connect(2): here the address is read before the descriptor is known to be a socket."""
    description = t.fds.get(fd)
    data = read_sockaddr(t, address, length)
    if not isinstance(description, SocketDescription):
        raise LinuxError(E.ENOTSOCK)
    description.connect(t, target_address(t, description, data))
    return 0


@syscall("shutdown")
def shutdown(t: Task, fd: Fd, how: Int) -> int:
    """shutdown(2)."""
    socket_of(t, fd).shutdown(how)
    return 0


@syscall("getsockname")
def getsockname(t: Task, fd: Fd, address: Ptr, length: Ptr) -> int:
    """getsockname(2)."""
    description = socket_of(t, fd)
    network = description.network
    write_sockaddr(t, network.to_guest(network.host.getsockname(description.fd)), address, length)
    return 0


@syscall("getpeername")
def getpeername(t: Task, fd: Fd, address: Ptr, length: Ptr) -> int:
    """getpeername(2)."""
    description = socket_of(t, fd)
    network = description.network
    write_sockaddr(t, network.to_guest(network.host.getpeername(description.fd)), address, length)
    return 0


@syscall("setsockopt")
def setsockopt(t: Task, fd: Fd, level: Int, name: Int, value: Ptr, length: SockLen) -> int:
    """setsockopt(2)."""
    set_option(t, socket_of(t, fd), level, name, value, length)
    return 0


@syscall("getsockopt")
def getsockopt(t: Task, fd: Fd, level: Int, name: Int, value: Ptr, length: Ptr) -> int:
    """getsockopt(2)."""
    get_option(t, socket_of(t, fd), level, name, value, length)
    return 0


# -- single messages -----------------------------------------------------------------------------------------------


def _note(t: Task, description: SocketDescription, address: HostAddress | None, control: bytes = b"") -> None:
    """After a sent AF_UNIX message: who sent it, if its receiver asks for credentials."""
    if address is not None and address.key is not None:
        target = description.network.find(address.key)
    else:
        target = receiver(description)
    if target is not None and target.pass_credentials:
        note_sender(description, target, explicit_pid(t, control) if control else t.group.tgid)


@syscall("sendto")
def sendto(t: Task, fd: Fd, buffer: Ptr, size: Size, flags: UInt, address: Ptr, length: SockLen) -> int:
    """sendto(2)."""
    description = socket_of(t, fd)
    target = None
    if address:
        target = target_address(t, description, read_sockaddr(t, address, length))
    sent = description.send(t, GuestIovec(t.memory, ((buffer, size),), Access.READ), flags, target)
    if description.family == AddressFamily.AF_UNIX:
        _note(t, description, target)
    return sent


@syscall("recvfrom")
def recvfrom(t: Task, fd: Fd, buffer: Ptr, size: Size, flags: UInt, address: Ptr, length: Ptr) -> int:
    """recvfrom(2)."""
    description = socket_of(t, fd)
    iovec = GuestIovec(t.memory, ((buffer, size),), Access.WRITE)
    if not address:
        count = description.receive(t, iovec, flags)
        if description.sender_pids:
            description.drop_sender(flags)
        return count
    count, name, _, _ = description.receive_message(t, iovec, flags, 0, bool(address))
    description.drop_sender(flags)
    if address:
        write_sockaddr(t, name, address, length)
    return count


# -- messages with everything --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MessageHeader:
    """struct user_msghdr as the guest gave it; `at` is where it lies."""

    at: int
    name: int
    name_length: int
    iovec: int
    iovec_count: int
    control: int
    control_length: int
    flags: int

    @classmethod
    def read(cls, t: Task, at: int) -> MessageHeader:
        """copy_msghdr_from_user(): EFAULT, EINVAL for a negative name length, EMSGSIZE past UIO_MAXIOV."""
        wide = t.memory.pointer_size == 8
        name, name_length, iovec, count, control, control_length, flags = t.memory.read_struct(
            at, "Pi4xPLPLI4x" if wide else "PiPLPLI"
        )
        if not name:
            name_length = 0
        if name_length < 0:
            raise LinuxError(E.EINVAL)
        if count > UIO_MAXIOV:
            raise LinuxError(E.EMSGSIZE)
        return cls(at, name, min(name_length, SOCKADDR_STORAGE_SIZE), iovec, count, control, control_length, flags)

    def write_back(self, t: Task, name_length: int, control_length: int, flags: int) -> None:
        """What recvmsg(2) changes in the structure."""
        memory = t.memory
        if memory.pointer_size == 8:
            if self.name:
                memory.write_u32(self.at + 8, name_length)
            memory.write_struct(self.at + 40, "LI", control_length, flags)
        else:
            if self.name:
                memory.write_u32(self.at + 4, name_length)
            memory.write_struct(self.at + 20, "LI", control_length, flags)


def header_size(t: Task) -> int:
    """sizeof(struct mmsghdr) before its msg_len."""
    return 56 if t.memory.pointer_size == 8 else 28


def send_one(t: Task, description: SocketDescription, at: int, flags: int) -> int:
    """One sendmsg(2)."""
    header = MessageHeader.read(t, at)
    name = read_sockaddr(t, header.name, header.name_length) if header.name and header.name_length else None
    pairs = t.memory.read_iovec(header.iovec, header.iovec_count)
    control = b""
    if header.control_length > 0x7FFFFFFF or header.control_length > _OPTMEM_MAX:
        raise LinuxError(E.ENOBUFS)
    if header.control_length:
        control = t.memory.read(header.control, header.control_length)
    target = None if name is None else target_address(t, description, name)
    iovec = GuestIovec(t.memory, pairs, Access.READ)
    if not control:
        sent = description.send(t, iovec, flags, target)
    else:
        sent = _send_with_control(t, description, iovec, flags, target, control)
    if description.family == AddressFamily.AF_UNIX:
        _note(t, description, target, control)
    return sent


def _send_with_control(
    t: Task, description: SocketDescription, iovec: GuestIovec, flags: int, target: HostAddress | None, control: bytes
) -> int:
    if target is not None and target.key is not None:
        to_guest = description.network.find(target.key) is not None
    else:
        to_guest = description.peer is not None or description.peer_pid is not None
    memo = t.call.memo
    if type(memo) is Progress and memo.bytes:
        return description.send(t, iovec, flags, target)  # its control data went with the first bytes
    outgoing = translate_outgoing(t, description, control, to_guest)
    try:
        return description.send(t, iovec, flags, target, outgoing.control)
    finally:
        outgoing.close()


def receive_one(t: Task, description: SocketDescription, at: int, flags: int) -> int:
    """One recvmsg(2)."""
    header = MessageHeader.read(t, at)
    pairs = t.memory.read_iovec(header.iovec, header.iovec_count)
    iovec = GuestIovec(t.memory, pairs, Access.WRITE)
    room = min(header.control_length, _MAX_CONTROL)
    count, name, control, out_flags = description.receive_message(t, iovec, flags, room, bool(header.name))
    pids = len(description.sender_pids)
    translated, truncated = translate_incoming(t, description, control, room, flags) if control else (b"", 0)
    if len(description.sender_pids) == pids:
        description.drop_sender(flags)
    if header.name:
        t.memory.write(header.name, name[: header.name_length])
    if translated:
        t.memory.write(header.control, translated)
    out_flags = out_flags & ~Msg.CMSG_CLOEXEC | truncated | flags & Msg.CMSG_CLOEXEC
    header.write_back(t, len(name), len(translated), out_flags)
    return count


@syscall("sendmsg")
def sendmsg(t: Task, fd: Fd, message: Ptr, flags: UInt) -> int:
    """sendmsg(2)."""
    description = socket_of(t, fd)
    _refuse_compat(flags)
    return send_one(t, description, message, flags)


@syscall("recvmsg")
def recvmsg(t: Task, fd: Fd, message: Ptr, flags: UInt) -> int:
    """recvmsg(2)."""
    description = socket_of(t, fd)
    _refuse_compat(flags)
    return receive_one(t, description, message, flags)


def _refuse_compat(flags: int) -> None:
    if flags & Msg.CMSG_COMPAT:
        raise LinuxError(E.EINVAL)


# -- many messages -------------------------------------------------------------------------------------------------


@syscall("sendmmsg")
def sendmmsg(t: Task, fd: Fd, vector: Ptr, count: UInt, flags: UInt) -> int:
    """sendmmsg(2): the number sent; an error only if it hits the first."""
    _refuse_compat(flags)
    description = socket_of(t, fd)
    progress = progress_of(t)
    stride = header_size(t) + (8 if t.memory.pointer_size == 8 else 4)
    while progress.messages < min(count, UIO_MAXIOV):
        at = vector + progress.messages * stride
        try:
            sent = send_one(t, description, at, flags)
            t.memory.write_u32(at + header_size(t), sent)
        except LinuxError:
            if progress.messages:
                return progress.messages
            raise
        except Block as block:
            raise _with_messages(block, progress.messages) from None
        progress.messages += 1
        progress.bytes = 0
    return progress.messages


@syscall("recvmmsg")
def recvmmsg(t: Task, fd: Fd, vector: Ptr, count: UInt, flags: UInt, timeout: Ptr) -> int:
    """recvmmsg(2): the timeout is only looked at after each message (recvmmsg(2), BUGS)."""
    _refuse_compat(flags)
    limit_ns = t.memory.read_timespec(timeout) if timeout else None
    description = socket_of(t, fd)
    now = t.kernel.clock.monotonic_ns
    progress = progress_of(t)
    if progress.started_ns is None:
        progress.started_ns = now()
    end_ns = None if limit_ns is None else progress.started_ns + limit_ns
    stride = header_size(t) + (8 if t.memory.pointer_size == 8 else 4)
    while progress.messages < min(count, UIO_MAXIOV):
        at = vector + progress.messages * stride
        wait = Msg.DONTWAIT if progress.messages and flags & Msg.WAITFORONE else 0
        try:
            size = receive_one(t, description, at, flags & ~Msg.WAITFORONE | wait)
            t.memory.write_u32(at + header_size(t), size)
        except LinuxError:
            if not progress.messages:
                raise
            break
        except Block as block:
            raise _with_messages(block, progress.messages) from None
        progress.messages += 1
        progress.bytes = 0
        if end_ns is not None and now() >= end_ns:
            break
    if end_ns is not None:
        t.memory.write_timespec(timeout, max(end_ns - now(), 0))
    return progress.messages


def _with_messages(block: Block, messages: int) -> Block:
    """A signal ends the call with the messages done so far."""
    if not messages:
        return block
    wait = block.wait
    return Block(
        type(wait)(
            wait.what, wait.queues, wait.host, wait.deadline_ns, restart=wait.restart, interrupted=lambda _: messages
        )
    )
