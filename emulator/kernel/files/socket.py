"""Sockets: each is a host socket, never blocking, with the guest's own idea of blocking on top.

Rule: the host kernel checks and answers; this object adds what only the emulator can: blocking as data, guest pids,
guest paths, the `--net` policy.  Source: socket(7), unix(7), tcp(7), connect(2), send(2), recv(2); net/socket.c.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.memory import Access
from emulator.abi.polling import ALWAYS, Poll
from emulator.abi.signals import Siginfo, Signal
from emulator.abi.sockets import SOL_SOCKET, AddressFamily, Msg, Shutdown, SocketOption, SocketType
from emulator.errors import LinuxError
from emulator.kernel import signals
from emulator.kernel.files.description import Description, ReadBuffers, Stat, WriteBuffers, total
from emulator.kernel.files.iovecs import STREAM_CHUNK, GuestIovec, Iovec, ViewIovec
from emulator.kernel.waits import Block, HostPoll, Wait

if TYPE_CHECKING:
    from emulator.kernel.files.network import HostAddress, Network
    from emulator.kernel.tasks import Task

_READ, _WRITE = Access.READ, Access.WRITE
_UNSPEC = AddressFamily.AF_UNSPEC.to_bytes(2, "little")
_PLAIN = Msg.NOSIGNAL  # with no more than this, recv(2) is read(2)
ALL_EVENTS = Poll.IN | Poll.PRI | Poll.OUT | Poll.RDHUP | ALWAYS
RETRY_NS = 1_000_000  # where the host can't tell when to try again (a full AF_UNIX backlog or receiver)


class Progress:
    """What a call has done before it blocked; lives in `task.call.memo`."""

    __slots__ = ("bytes", "connecting", "messages", "started_ns")

    def __init__(self) -> None:
        self.bytes = 0
        self.messages = 0
        self.connecting = False
        self.started_ns: int | None = None


def progress_of(t: Task) -> Progress:
    """The present call's progress."""
    memo = t.call.memo
    if type(memo) is Progress:
        return memo
    fresh = t.call.memo = Progress()
    return fresh


def uses_timeout(t: Task, timeout_ns: int | None) -> bool:
    """Whether the time is up; fixes the deadline at the first call.  `timeout_ns` None never is."""
    if timeout_ns is None:
        return False
    call = t.call
    if call.deadline_ns is None:
        call.deadline_ns = t.kernel.clock.monotonic_ns() + timeout_ns
        return timeout_ns <= 0
    return t.kernel.clock.monotonic_ns() >= call.deadline_ns


class SocketDescription(Description):
    """An open socket."""

    __slots__ = (
        "__weakref__",
        "directory",
        "family",
        "fd",
        "host_path",
        "lingers",
        "network",
        "pass_credentials",
        "peer",
        "peer_pid",
        "pending",
        "pid",
        "protocol",
        "receive_timeout_ns",
        "send_timeout_ns",
        "sender_pids",
        "shared",
        "type",
        "unix_key",
    )

    splices_from = splices_to = True
    kind = "socket"

    def __init__(self, network: Network, fd: int, family: int, kind: int, protocol: int, flags: int, pid: int) -> None:
        """Takes the host descriptor over.  `pid` is the guest process that made it."""
        super().__init__(network.files, O.RDWR | flags & O.NONBLOCK)
        self.network = network
        self.fd = fd
        self.family = family
        self.type = kind
        self.protocol = protocol
        self.receive_timeout_ns: int | None = None
        self.send_timeout_ns: int | None = None
        self.shared = False  # a host process has it too: it may block, so every call says MSG_DONTWAIT
        self.pid = pid  # guest pid for SO_PEERCRED of whoever is at the other end
        self.peer_pid: int | None = None  # None: the peer is no guest, or there is none
        self.peer: weakref.ref[SocketDescription] | None = None
        self.pending: deque[tuple[weakref.ref[SocketDescription], int]] = deque()  # connected, not yet accepted
        self.sender_pids: deque[int] = deque()  # of queued AF_UNIX datagrams
        self.pass_credentials = False
        self.lingers = False  # SO_LINGER with a time
        self.unix_key: object = None
        self.host_path: bytes | None = None
        self.directory: object = None

    # -- the description's side ----------------------------------------------------------------------------------

    def close(self) -> None:
        """The last reference is gone."""
        if self.lingers:  # the host would sleep in close(2) with everybody in it; the data goes out behind our back
            with contextlib.suppress(LinuxError):
                self.network.host.set_option(self.fd, SOL_SOCKET, SocketOption.SO_LINGER, bytes(8))
        self.network.host.close(self.fd)
        if self.host_path is not None:
            self.network.forget(self.host_path)
        self.network.sweep()

    def host_fd(self) -> int | None:
        """The host socket."""
        return self.fd

    def stat(self) -> Stat:
        """fstat(2)."""
        return self.host.fstat(self.fd)

    def readlink_text(self) -> bytes:
        """socket:[inode]."""
        return b"socket:[%d]" % self.stat().st_ino

    def poll(self, events: int) -> int:
        """poll(2), by the host."""
        return self.network.host.poll(self.fd, events)

    def host_poll(self) -> HostPoll | None:
        """The host socket tells everything."""
        return HostPoll(self.fd, ALL_EVENTS)

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        """read(2) is recv(2) without flags."""
        got = self._read_or_wait(t, buffers)
        if isinstance(got, Wait):
            raise Block(got)
        return got

    def _read_or_wait(self, t: Task, buffers: ReadBuffers) -> int | Wait:
        if self.shared:
            return self.receive(t, ViewIovec(buffers), 0)
        count = self.host.readv_ready(self.fd, buffers)
        if count < 0:
            if self.flags & O.NONBLOCK:
                raise LinuxError(E.EAGAIN)
            return self.wait_for(t, "sk_wait_data", Poll.IN, self.receive_timeout_ns)
        if self.network.in_flight:
            self.network.sweep()  # descriptors in the message are gone: nobody asked for them
        return count

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        """write(2) is send(2) without flags."""
        if self.shared or t.call.memo is not None:
            return self.send(t, ViewIovec(buffers), 0)
        try:
            sent = self.host.writev(self.fd, buffers)
        except LinuxError as error:
            if error.errno is E.EPIPE and self.is_stream:
                self._broken_pipe(t)
            if error.errno is not E.EAGAIN or self.flags & O.NONBLOCK:
                raise
            return self.send(t, ViewIovec(buffers), 0)
        if self.flags & O.NONBLOCK or not self.is_stream or sent == total(buffers):
            return sent
        progress_of(t).bytes = sent
        return self.send(t, ViewIovec(buffers), 0)

    def read_one(self, t: Task, address: int, count: int) -> int | Wait:
        """read(2) straight from a guest address: a bad one is the host's to find, after what it checks first."""
        if 0 < count <= STREAM_CHUNK:
            try:
                views = t.memory.buffers(address, count, _WRITE)
            except LinuxError:
                pass
            else:
                got = self._read_or_wait(t, views)
                if self.sender_pids and not isinstance(got, Wait):
                    self.drop_sender(0)
                return got
        return self.read_guest(t, ((address, count),)) if count else 0

    def write_one(self, t: Task, address: int, count: int) -> int:
        """write(2) likewise; nothing is a message too."""
        if 0 < count <= STREAM_CHUNK:
            try:
                views = t.memory.buffers(address, count, _READ)
            except LinuxError:
                pass
            else:
                return self.write(t, views)
        return self.send(t, GuestIovec(t.memory, ((address, count),), Access.READ), 0)

    def read_guest(self, t: Task, pairs: Sequence[tuple[int, int]]) -> int:
        """readv(2) likewise."""
        iovec = GuestIovec(t.memory, pairs, Access.WRITE)
        views = iovec.views()
        got = self.receive(t, iovec, 0) if views is None else self.read(t, views)
        self.drop_sender(0)
        return got

    def drop_sender(self, flags: int) -> None:
        """A datagram came without its credentials: its sender is not the next one's."""
        self.network.sweep()
        if self.sender_pids and not self.is_stream and not flags & Msg.PEEK:
            self.sender_pids.popleft()

    def write_guest(self, t: Task, pairs: Sequence[tuple[int, int]]) -> int:
        """writev(2) likewise."""
        iovec = GuestIovec(t.memory, pairs, Access.READ)
        views = iovec.views()
        return self.send(t, iovec, 0) if views is None else self.write(t, views)

    @staticmethod
    def _broken_pipe(t: Task) -> None:
        signals.send_to_task(t, Siginfo(Signal.SIGPIPE, 0, pid=t.group.tgid, uid=t.credentials.ruid))

    def ioctl(self, t: Task, request: int, argument: int) -> int:
        """Socket ioctls (syscalls.sockets has the decoder, because they carry guest structures)."""
        from emulator.kernel.files.socket_ioctls import socket_ioctl

        return socket_ioctl(self, t, request, argument)

    @property
    def is_stream(self) -> bool:
        """SOCK_STREAM: bytes without boundaries."""
        return self.type == SocketType.SOCK_STREAM

    # -- waiting -------------------------------------------------------------------------------------------------

    def sleep(self, t: Task, what: str, events: int, timeout_ns: int | None, done: int = 0) -> NoReturn:
        """Block as `wait_for` says."""
        raise Block(self.wait_for(t, what, events, timeout_ns, done))

    def wait_for(self, t: Task, what: str, events: int, timeout_ns: int | None, done: int = 0) -> Wait:
        """Wait until `events`; EAGAIN, or what is `done`, once the socket's timeout is over."""
        if uses_timeout(t, timeout_ns):
            raise LinuxError(E.EAGAIN)
        deadline = t.call.deadline_ns
        if events & Poll.OUT and self.family == AddressFamily.AF_UNIX and self.poll(events):
            # Writable as far as poll(2) sees: it is the receiver, or the backlog, that is full.
            soon = t.kernel.clock.monotonic_ns() + RETRY_NS
            return self._wait(what, (), soon if deadline is None else min(soon, deadline), timeout_ns, done)
        return self._wait(what, (HostPoll(self.fd, events),), deadline, timeout_ns, done)

    def _wait(
        self, what: str, polls: tuple[HostPoll, ...], deadline: int | None, timeout_ns: int | None, done: int
    ) -> Wait:
        interrupted: Callable[[Task], int | None] | None = (lambda _t: done) if done else None
        # sock_intr_errno(): with a timeout the call is not restarted.
        restart = E.ERESTARTSYS if timeout_ns is None else E.EINTR
        return Wait(what, (), polls, deadline, restart=restart, interrupted=interrupted)

    def blocks(self, flags: int) -> bool:
        """Whether a call with these message flags may wait."""
        return not (self.flags & O.NONBLOCK or flags & (Msg.DONTWAIT | Msg.ERRQUEUE))

    # -- connections ---------------------------------------------------------------------------------------------

    def listen(self, t: Task, backlog: int) -> None:
        """listen(2)."""
        self.network.host.do("listen", self.fd, backlog)
        self.pid = t.group.tgid
        if self.family == AddressFamily.AF_UNIX and self.unix_key is None:
            self.learn_name()

    def accept(self, t: Task, flags: int) -> tuple[SocketDescription, bytes]:
        """accept4(2): the connection and its peer's address."""
        try:
            fd, address = self.network.host.accept(self.fd)
        except LinuxError as error:
            if error.errno is not E.EAGAIN or not self.blocks(0):
                raise
            self.sleep(t, "inet_csk_accept", Poll.IN, self.receive_timeout_ns)
        new = SocketDescription(self.network, fd, self.family, self.type, self.protocol, flags, self.pid)
        new.pass_credentials = self.pass_credentials
        if self.family == AddressFamily.AF_UNIX:
            self._meet(new)
        return new, self.network.to_guest(address)

    def meet(self, other: SocketDescription) -> None:
        """socketpair(2): both ends are known."""
        self.peer, other.peer = weakref.ref(other), weakref.ref(self)
        self.peer_pid = other.peer_pid = self.pid

    def _meet(self, new: SocketDescription) -> None:
        """Who is at the other end of an accepted AF_UNIX connection: the queue is first come, first served."""
        host_pid = int.from_bytes(
            self.network.host.option(new.fd, SOL_SOCKET, SocketOption.SO_PEERCRED, 12)[:4], "little"
        )
        if not self.network.is_ours(host_pid) or not self.pending:
            return
        reference, new.peer_pid = self.pending.popleft()
        new.peer = reference
        other = reference()
        if other is not None:
            other.peer = weakref.ref(new)

    def bind(self, t: Task, address: HostAddress) -> None:
        """bind(2)."""
        network = self.network
        network.check_local(self.family, address.data)
        if self.family != AddressFamily.AF_UNIX:
            network.host.bind(self.fd, address.data)
            return
        bind_here = partial(network.host.bind, self.fd, address.data)
        if address.directory is None:
            network.host.with_umask(t.fs.umask, bind_here)
        else:
            network.host.in_directory(address.directory, bind_here, t.fs.umask)
        self.learn_name()

    def connect(self, t: Task, address: HostAddress) -> None:
        """connect(2)."""
        disconnects = address.data[:2] == _UNSPEC
        if not disconnects:
            self.network.check_target(self.family, address.data)
        progress = progress_of(t)
        try:
            self.network.at(address, partial(self.network.host.connect, self.fd, address.data))
        except LinuxError as error:
            waiting = error.errno in (E.EINPROGRESS, E.EALREADY) or (
                error.errno is E.EAGAIN and self.family == AddressFamily.AF_UNIX
            )
            if not waiting or self.flags & O.NONBLOCK:
                raise
            progress.connecting = True
            if uses_timeout(t, self.send_timeout_ns):
                # The attempt goes on (EINPROGRESS), but a full AF_UNIX backlog is EAGAIN.
                raise LinuxError(E.EAGAIN if error.errno is E.EAGAIN else E.EINPROGRESS) from None
            self.sleep(t, "inet_wait_for_connect", Poll.OUT, self.send_timeout_ns)
        if self.family == AddressFamily.AF_UNIX:
            self._connected(t, address)
        elif disconnects and self.network.confined:
            self.network.confine(self.fd)

    def _connected(self, t: Task, address: HostAddress) -> None:
        listener = self.network.find(address.key) if address.key is not None else None
        if listener is None:
            self.peer = None
            self.peer_pid = None
            return
        self.peer_pid = listener.pid
        if self.type == SocketType.SOCK_DGRAM:
            self.peer = weakref.ref(listener)
        else:
            listener.pending.append((weakref.ref(self), t.group.tgid))

    def shutdown(self, how: int) -> None:
        """shutdown(2)."""
        self.network.host.do("shutdown", self.fd, how)
        if how != Shutdown.SHUT_RD:
            self.network.sweep()

    def learn_name(self) -> None:
        """Enter an AF_UNIX socket's abstract name, given or by autobind, where peers are looked up."""
        if self.family != AddressFamily.AF_UNIX or self.unix_key is not None:
            return
        name = self.network.host.getsockname(self.fd)
        if len(name) > 2 and name[2] == 0:
            self.unix_key = name
            self.network.enter(name, self)

    # -- data ----------------------------------------------------------------------------------------------------

    def send(self, t: Task, iovec: Iovec, flags: int, address: HostAddress | None = None, control: bytes = b"") -> int:
        """sendmsg(2): a blocking stream call goes on until everything is sent."""
        host = self.network.host
        data = None
        if address is not None:
            data = address.data
            self.network.check_target(self.family, data)
        elif not control and t.call.memo is None:
            view = iovec.single()
            if view is not None:
                try:
                    sent = host.move("sendto", self.fd, view, flags)
                except LinuxError as error:
                    if error.errno is E.EPIPE and self.is_stream and not flags & Msg.NOSIGNAL:
                        self._broken_pipe(t)
                    raise
                if sent == len(view) or (sent >= 0 and not self.is_stream):
                    return sent
                if sent < 0 and not self.blocks(flags):
                    raise LinuxError(E.EAGAIN)
                progress_of(t).bytes = max(sent, 0)
            elif self.is_stream and not flags and not self.shared:
                views = iovec.views()
                if views:
                    return self.write(t, views)
        limit = STREAM_CHUNK if self.is_stream else None
        progress = t.call.memo
        done = progress.bytes if type(progress) is Progress else 0
        wanted = iovec.total
        while True:
            try:
                here = iovec.host(done, limit)
                if address is None or address.directory is None:
                    sent = host.sendmsg(self.fd, here, flags, data, control if not done else b"")
                else:
                    sent = host.in_directory(
                        address.directory, partial(host.sendmsg, self.fd, here, flags, data, control)
                    )
            except LinuxError as error:
                if error.errno is E.EAGAIN and self.blocks(flags):
                    progress_of(t).bytes = done
                    if done and uses_timeout(t, self.send_timeout_ns):
                        return done
                    self.sleep(t, "sock_alloc_send_pskb", Poll.OUT, self.send_timeout_ns, done)
                if done:
                    return done
                if error.errno is E.EPIPE and self.is_stream and not flags & Msg.NOSIGNAL:
                    self._broken_pipe(t)
                raise
            done += sent
            if done >= wanted or not self.is_stream:
                return done

    def receive(self, t: Task, iovec: Iovec, flags: int) -> int:
        """recv(2): how many bytes came."""
        if flags & Msg.WAITALL and self.is_stream:
            return self.receive_message(t, iovec, flags, 0, False)[0]
        view = iovec.single()
        if view is not None:
            count = self.network.host.move("recvfrom", self.fd, view, flags)
            if count >= 0:
                if self.network.in_flight:
                    self.network.sweep()
                return count
            if not self.blocks(flags):
                raise LinuxError(E.EAGAIN)
        elif not flags & ~_PLAIN and not self.shared and self.blocks(flags):
            views = iovec.views()
            if views:
                return self.read(t, views)
        try:
            count = self.network.host.recv(self.fd, iovec.host(0, STREAM_CHUNK if self.is_stream else None), flags)
            self.network.sweep()  # descriptors in the message are gone: nobody asked for them
            return count
        except LinuxError as error:
            if error.errno is not E.EAGAIN or not self.blocks(flags):
                raise
            self.sleep(t, "sk_wait_data", Poll.PRI if flags & Msg.OOB else Poll.IN, self.receive_timeout_ns)

    def receive_message(
        self, t: Task, iovec: Iovec, flags: int, control_size: int, want_name: bool
    ) -> tuple[int, bytes, bytes, int]:
        """recvmsg(2): count, address, control data, flags."""
        host = self.network.host
        limit = STREAM_CHUNK if self.is_stream else None
        collect = flags & Msg.WAITALL and self.is_stream and not flags & (Msg.PEEK | Msg.OOB) and self.blocks(flags)
        progress = progress_of(t)
        done = progress.bytes if collect else 0
        name, control, out_flags = b"", b"", 0
        while True:
            try:
                count, name, control, out_flags = host.recvmsg(
                    self.fd, iovec.host(done, limit), flags & ~Msg.CMSG_CLOEXEC, control_size, want_name
                )
            except LinuxError as error:
                if error.errno is E.EAGAIN and self.blocks(flags):
                    progress.bytes = done
                    if done and uses_timeout(t, self.receive_timeout_ns):
                        return done, name, control, out_flags
                    events = Poll.PRI if flags & Msg.OOB else Poll.IN
                    self.sleep(t, "sk_wait_data", events, self.receive_timeout_ns, done)
                if done:
                    return done, name, control, out_flags
                raise
            done += count
            if not collect or not count or control or done >= iovec.total:
                return done, self.network.to_guest(name), control, out_flags
