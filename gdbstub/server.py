"""The trio shell around a session: TCP, unix socket, stdio.

Rule: it moves bytes and gives the target its time; it understands neither.

A debugger's traffic is short questions with quick answers, so a conversation does not go through trio's scheduler: the
client's socket is read with a timeout of two milliseconds, and only a client that is silent for longer is awaited.
Every five milliseconds trio gets its turn anyway, so signals and cancellation never wait.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from time import monotonic, monotonic_ns
from typing import Protocol

import trio

from gdbstub.abilities import Beside, Launch
from gdbstub.session import PacketLog, Session
from gdbstub.target import SliceResult, Target, Waiting

QUICK_S = 0.002
TURN_S = 0.005
GRACE_S = 0.7  # from SIGTERM to the end, however busy the target is
_CHUNK = 1 << 18
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

# ------------------------------------------------------------------------------------------------------------ addresses


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """Port 0: any."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system."""

    path: str


@dataclass(frozen=True, slots=True)
class StdioAddress:
    """The server's own stdin and stdout, or the descriptors given."""

    reading: int = 0
    writing: int = 1


Address = TcpAddress | UnixAddress | StdioAddress


def parse_address(text: str) -> Address:
    """Read HOST:PORT, :PORT (loopback), unix:PATH or -; raises ValueError with a sentence."""
    if text == "-":
        return StdioAddress()
    if text.startswith("unix:") and len(text) > len("unix:"):
        return UnixAddress(text[len("unix:") :])
    host, colon, port_text = text.rpartition(":")
    if not colon or not port_text.isascii() or not port_text.isdigit() or int(port_text) > 0xFFFF:
        raise ValueError(f"{text!r} is neither HOST:PORT, :PORT, unix:PATH nor -")
    return TcpAddress(host.strip("[]") or "127.0.0.1", int(port_text))


# ---------------------------------------------------------------------------------------------------------- connections


class Connection(Protocol):
    """A byte stream to one client."""

    def fileno(self) -> int:
        """What to wait on for bytes."""

    def receive(self, *, patiently: bool) -> bytes | None:
        """Bytes; b"" at the end; None if there are none yet (`patiently`: within QUICK_S)."""

    async def send(self, data: bytes) -> None:
        """All of it; raises OSError if the client is gone."""

    def close(self) -> None: ...


class SocketConnection:
    """A stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(_CHUNK)  # kept: a new one for each packet would come from mmap
        self._view = memoryview(self._buffer)
        # Blocking with a timeout of the kernel's: one system call reads a packet, and none goes to select
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(QUICK_S * 1e6)))
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self, *, patiently: bool) -> bytes | None:
        try:
            count = self._socket.recv_into(self._buffer, 0, 0 if patiently else socket.MSG_DONTWAIT)
            return bytes(self._view[:count])
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    async def send(self, data: bytes) -> None:
        sent = self._try(data)
        if sent < len(data):
            view = memoryview(data)
            while sent < len(data):
                await trio.lowlevel.wait_writable(self._socket)
                sent += self._try(view[sent:])

    def _try(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        self._socket.close()


class PipeConnection:
    """Two descriptors."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._poll = select.poll()
        self._poll.register(reading, select.POLLIN)

    def fileno(self) -> int:
        return self._reading

    def receive(self, *, patiently: bool) -> bytes | None:
        if not self._poll.poll(QUICK_S * 1000 if patiently else 0):
            return None
        try:
            return os.read(self._reading, _CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._writing, view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._writing)

    def close(self) -> None:
        """The descriptors stay: they are the process's."""


# ------------------------------------------------------------------------------------------------------------ listening


class Listener:
    """Where clients come from, one after the other."""

    def __init__(self, address: Address) -> None:
        """Bind and listen; raises OSError."""
        self._once: StdioAddress | None = None
        self._socket: socket.socket | None = None
        self._path: str | None = None
        self.notice = ""  # what to tell the user
        match address:
            case StdioAddress():
                self._once = address
            case UnixAddress(path):
                _remove_stale_socket(path)
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.bind(path)
                self._path = path
                self.notice = f"Listening on {path}"
            case TcpAddress(host, port):
                family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
                self._socket = socket.socket(family, socket.SOCK_STREAM)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._socket.bind(place)
                # debug adapters wait for exactly this line of gdbserver's
                self.notice = f"Listening on port {self._socket.getsockname()[1]}"
                if host not in _LOOPBACK and not str(place[0]).startswith("127."):
                    self.notice = (
                        f"WARNING: listening on {host}: whoever reaches this port owns the debugged program and its "
                        f"files.\n{self.notice}"
                    )
        if self._socket is not None:
            self._socket.listen(8)
            self._socket.setblocking(False)

    @property
    def exhausted(self) -> bool:
        """No client will come any more."""
        return self._socket is None and self._once is None

    def fileno(self) -> int:
        """What to wait on for a client."""
        return -1 if self._socket is None else self._socket.fileno()

    def accept(self) -> Connection | None:
        """A client, if one is there."""
        if self._once is not None:
            address, self._once = self._once, None
            return PipeConnection(address.reading, address.writing)
        if self._socket is None:
            return None
        try:
            return SocketConnection(self._socket.accept()[0])
        except (BlockingIOError, ConnectionAbortedError):
            return None

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.close()
        if self._path is not None:
            with suppress(OSError):
                os.unlink(self._path)


def _remove_stale_socket(path: str) -> None:
    with suppress(OSError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


# -------------------------------------------------------------------------------------------------------------- waiting


class Waiter:
    """Waits for one descriptor of ours and whatever the target waits for; one epoll holds them all."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting: Waiting | None = None
        self._epoll = select.epoll()
        self._always_ready = False

    def _prepare(self, waiting: Waiting) -> None:
        if waiting.host_fds == (None if self._waiting is None else self._waiting.host_fds):
            self._waiting = waiting
            return
        self._epoll.close()
        self._epoll = select.epoll()
        self._always_ready = False
        self._waiting = waiting
        wanted: dict[int, int] = {}
        for each in waiting.host_fds:
            wanted[each.fd] = wanted.get(each.fd, 0) | each.events
        if self._fd >= 0:
            wanted[self._fd] = wanted.get(self._fd, 0) | select.EPOLLIN
        for fd, events in wanted.items():
            try:
                self._epoll.register(fd, events)
            except OSError:  # a regular file, or one that was closed: its owner will find out
                self._always_ready = True

    async def wait(self, waiting: Waiting, quick: bool = True) -> None:
        """Return when any of it is ready or the deadline has passed."""
        self._prepare(waiting)
        if self._always_ready:
            return
        left = None if waiting.deadline_ns is None else max(0.0, (waiting.deadline_ns - monotonic_ns()) / 1e9)
        if quick and (self._epoll.poll(QUICK_S if left is None else min(QUICK_S, left)) or left == 0.0):
            return
        with trio.move_on_after(float("inf") if left is None else max(0.0, left - QUICK_S)):
            await trio.lowlevel.wait_readable(self._epoll.fileno())

    def close(self) -> None:
        """Give the descriptor back."""
        self._epoll.close()


_NOTHING = Waiting()

# -------------------------------------------------------------------------------------------------------------- serving


class Ending(Enum):
    """Why `serve` returned."""

    FINISHED = "no process is left"
    DETACHED = "the client let the processes go on"
    VANISHED = "the client is gone, the processes are still there"
    TERMINATED = "a signal ended the server"


async def converse(connection: Connection, target: Target, log: PacketLog | None = None) -> bool:
    """Serve one client until it or the session ends; returns whether the session came to its own end."""
    session = Session(target, log)
    waiter = Waiter(connection.fileno())
    turn = monotonic() + TURN_S
    run_beside = target.run_beside if isinstance(target, Beside) else None
    try:
        while True:
            if session.runnable:
                data = connection.receive(patiently=False)
                out = session.run(TURN_S / 2) if data is None else session.receive(data)
            elif session.busy:
                await waiter.wait(session.waiting)
                data = connection.receive(patiently=False)
                out = session.run() if data is None else session.receive(data)
            elif (beside := run_beside() if run_beside is not None else None) is not None:
                if isinstance(beside, Waiting):
                    await waiter.wait(beside)
                data = connection.receive(patiently=False)
                out = b"" if data is None else session.receive(data)
            else:
                data = connection.receive(patiently=True)
                if data is None:
                    await trio.lowlevel.wait_readable(connection.fileno())
                    continue
                out = session.receive(data)
            if out:
                await connection.send(out)
            if session.ended:
                return True
            if data == b"":
                return False
            if monotonic() > turn:
                await trio.lowlevel.checkpoint()
                turn = monotonic() + TURN_S
    except OSError:
        return False
    finally:
        waiter.close()
        session.close()
        connection.close()


async def _next_client(listener: Listener, target: Target) -> Connection | None:
    """Wait for a client, while a target that was left running runs on; None: all of it has ended."""
    waiter = Waiter(listener.fileno())
    try:
        while True:
            if (connection := listener.accept()) is not None:
                return connection
            result: SliceResult | None
            if target.is_running():
                result = target.run_slice()
            else:
                if listener.exhausted or not _worth_waiting(target):
                    return None
                result = target.run_beside() if isinstance(target, Beside) else None
            if result is None:
                await waiter.wait(_NOTHING, quick=False)
            elif isinstance(result, Waiting):
                await waiter.wait(result)
            else:
                await trio.lowlevel.checkpoint()
    finally:
        waiter.close()


def _worth_waiting(target: Target) -> bool:
    return bool(target.threads()) or isinstance(target, Launch)


async def serve(
    target: Target,
    address: Address,
    *,
    keep: bool = False,
    log: PacketLog | None = None,
    notice: Callable[[str], object] | None = None,
) -> Ending:
    """Listen, tell so, serve clients one at a time.

    `keep`: others may attach after the first has left; it ends when no process is left.  Raises OSError if the address
    cannot be had.  What becomes of the processes afterwards is the caller's business.
    """
    listener = Listener(address)
    tell = notice or _to_stderr
    ending = Ending.TERMINATED
    try:
        with trio.CancelScope() as scope, _ended_by_sigterm(scope):
            if listener.notice:
                tell(listener.notice)
            ending = await _serve_all(listener, target, keep, log)
    finally:
        listener.close()
    return ending


async def _serve_all(listener: Listener, target: Target, keep: bool, log: PacketLog | None) -> Ending:
    while True:
        connection = await _next_client(listener, target)
        if connection is None:  # nobody is left, or nobody can come again (stdio)
            return Ending.VANISHED if target.threads() else Ending.FINISHED
        parted = await converse(connection, target, log)
        if getattr(target, "exit_requested", False):
            return Ending.FINISHED
        if not target.threads():
            if not (keep and isinstance(target, Launch)):
                return Ending.FINISHED
        elif not keep:
            return Ending.DETACHED if parted else Ending.VANISHED


@contextmanager
def _ended_by_sigterm(scope: trio.CancelScope) -> Iterator[None]:
    """Cancel at SIGTERM; whoever does not come to a checkpoint in time (a target that hangs) is ended by the kernel."""
    token = trio.lowlevel.current_trio_token()

    def terminate(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        token.run_sync_soon(scope.cancel)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _to_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
