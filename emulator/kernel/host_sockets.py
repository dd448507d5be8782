"""The wing of the host door for sockets and readiness: libc called with raw addresses, errno kept.

Python's `socket` re-encodes addresses, raises errors without an errno and refuses what it does not know, so the guest's
bytes go through ctypes instead.  Rule: a call returns what the kernel returned or raises LinuxError by name, whatever
went wrong on the way; nothing here ever blocks.  Source: man 2 of each call.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from emulator.abi.sockets import SO_BINDTODEVICE, SOCK_CLOEXEC, SOCK_NONBLOCK, SOL_SOCKET, Msg, SocketOption
from emulator.errors import LinuxError
from emulator.kernel.host_errno import FAILURES, by_number, linux_error

T = TypeVar("T")
_int, _uint, _size, _ssize, _ptr = ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.c_ssize_t, ctypes.c_void_p

_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "socket": (_int, (_int, _int, _int)),
    "socketpair": (_int, (_int, _int, _int, _ptr)),
    "bind": (_int, (_int, _ptr, _uint)),
    "listen": (_int, (_int, _int)),
    "accept4": (_int, (_int, _ptr, _ptr, _int)),
    "connect": (_int, (_int, _ptr, _uint)),
    "getsockname": (_int, (_int, _ptr, _ptr)),
    "getpeername": (_int, (_int, _ptr, _ptr)),
    "setsockopt": (_int, (_int, _int, _int, _ptr, _uint)),
    "getsockopt": (_int, (_int, _int, _int, _ptr, _ptr)),
    "shutdown": (_int, (_int, _int)),
    "sendto": (_ssize, (_int, _ptr, _size, _int, _ptr, _uint)),
    "recvfrom": (_ssize, (_int, _ptr, _size, _int, _ptr, _ptr)),
    "sendmsg": (_ssize, (_int, _ptr, _int)),
    "recvmsg": (_ssize, (_int, _ptr, _int)),
    "ioctl": (_int, (_int, ctypes.c_ulong, _ptr)),
    "poll": (_int, (_ptr, ctypes.c_ulong, _int)),
    "inotify_init1": (_int, (_int,)),
    "inotify_add_watch": (_int, (_int, ctypes.c_char_p, ctypes.c_uint32)),
    "inotify_rm_watch": (_int, (_int, _int)),
}

_address = ctypes.addressof
_char_at = ctypes.c_char.from_buffer
_NEVER_BLOCK = Msg.DONTWAIT | Msg.NOSIGNAL
_EAGAIN = 11
BAD_ADDRESS = 8  # never mapped: the host answers EFAULT for it, at its own place in its order of checks


def _load() -> dict[str, Callable[..., int]]:
    libc = ctypes.CDLL(None, use_errno=True)
    functions: dict[str, Callable[..., int]] = {}
    for name, (restype, argtypes) in _SIGNATURES.items():
        function = getattr(libc, name)
        function.restype = restype
        function.argtypes = argtypes
        functions[name] = function
    return functions


class Block:
    """Bytes the host may read and write, with an address."""

    __slots__ = ("_buffer", "address", "size")

    def __init__(self, content: bytes | int) -> None:
        self.size = content if isinstance(content, int) else len(content)
        self._buffer = ctypes.create_string_buffer(content, max(self.size, 1))
        self.address = ctypes.addressof(self._buffer)

    def bytes(self, count: int | None = None) -> bytes:
        """The first `count` bytes as they are now."""
        return ctypes.string_at(self.address, self.size if count is None else min(count, self.size))


def address_of(view: memoryview | bytearray) -> int:
    """The host address of a writable view."""
    return _address(_char_at(view))


class HostIovec:
    """An array of struct iovec over host memory; keeps what it points at alive."""

    __slots__ = ("_array", "_keep", "address", "count", "first", "total")

    def __init__(self, segments: Sequence[tuple[int, int]], keep: object = None) -> None:
        self.count = len(segments)
        self.first = segments[0] if segments else (0, 0)
        self.total = sum(length for _, length in segments)
        flat = [word for segment in segments for word in segment]
        self._array = (ctypes.c_ulong * max(len(flat), 1))(*flat)
        self.address = ctypes.addressof(self._array)
        self._keep = keep


_MSGHDR = struct.Struct("@PI4xPLPLi4x")
_ADDRESS_ROOM = 256  # the host writes at most sockaddr_storage; a little air


class HostSockets:
    """Raw socket calls of the host.  Descriptors it makes are close-on-exec and non-blocking."""

    def __init__(self) -> None:
        self.functions = _load()
        self._name = Block(_ADDRESS_ROOM)
        self._length = ctypes.c_uint32()
        self._length_address = ctypes.addressof(self._length)
        self._one_poll = ctypes.create_string_buffer(8)

    def do(self, name: str, *args: Any) -> int:
        """Call libc; LinuxError by name on any failure."""
        function = self.functions[name]
        while True:
            try:
                result = function(*args)
            except (*FAILURES, ctypes.ArgumentError, TypeError) as error:
                raise linux_error(error) from None
            if result != -1:
                return result
            number = ctypes.get_errno()
            if number != 4:  # EINTR: a signal of the server's own, none of the guest's business
                raise LinuxError(by_number(number))

    # -- life ----------------------------------------------------------------------------------------------------

    def socket(self, family: int, kind: int, protocol: int) -> int:
        """socket(2)."""
        return self.do("socket", family, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol)

    def socketpair(self, family: int, kind: int, protocol: int) -> tuple[int, int]:
        """socketpair(2)."""
        pair = (ctypes.c_int * 2)()
        self.do("socketpair", family, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol, ctypes.addressof(pair))
        return pair[0], pair[1]

    def accept(self, fd: int) -> tuple[int, bytes]:
        """accept4(2): the new descriptor and the peer's address."""
        self._length.value = _ADDRESS_ROOM
        new = self.do("accept4", fd, self._name.address, self._length_address, SOCK_CLOEXEC | SOCK_NONBLOCK)
        return new, self._name.bytes(self._length.value)

    def close(self, fd: int) -> None:
        """close(2), which for a socket has nothing to say."""
        with contextlib.suppress(OSError):
            os.close(fd)

    def dup(self, fd: int) -> int:
        """Duplicate, close-on-exec."""
        try:
            return os.dup(fd)
        except FAILURES as error:
            raise linux_error(error) from None

    def token(self) -> tuple[int, int]:
        """A pipe (read end, write end): something to pass that tells when its last copy is closed."""
        try:
            return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except FAILURES as error:
            raise linux_error(error) from None

    def pid(self) -> int:
        """What the host calls the process all guests live in."""
        return os.getpid()

    # -- names ---------------------------------------------------------------------------------------------------

    def bind(self, fd: int, address: bytes) -> None:
        """bind(2)."""
        block = Block(address)
        self.do("bind", fd, block.address, len(address))

    def connect(self, fd: int, address: bytes) -> None:
        """connect(2)."""
        block = Block(address)
        self.do("connect", fd, block.address, len(address))

    def in_directory(self, directory: int, call: Callable[[], T], umask: int = 0) -> T:
        """Run one call with this working directory and umask (a relative AF_UNIX path means the guest's)."""
        try:
            back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FAILURES as error:
            raise linux_error(error) from None
        old_umask = os.umask(umask)
        try:
            os.fchdir(directory)
            return call()
        except FAILURES as error:
            raise linux_error(error) from None
        finally:
            os.umask(old_umask)
            with contextlib.suppress(OSError):
                os.fchdir(back)
            os.close(back)

    def with_umask(self, umask: int, call: Callable[[], None]) -> None:
        """Run one call with this umask."""
        old = os.umask(umask)
        try:
            call()
        finally:
            os.umask(old)

    def getsockname(self, fd: int) -> bytes:
        """getsockname(2)."""
        self._length.value = _ADDRESS_ROOM
        self.do("getsockname", fd, self._name.address, self._length_address)
        return self._name.bytes(self._length.value)

    def getpeername(self, fd: int) -> bytes:
        """getpeername(2)."""
        self._length.value = _ADDRESS_ROOM
        self.do("getpeername", fd, self._name.address, self._length_address)
        return self._name.bytes(self._length.value)

    # -- options -------------------------------------------------------------------------------------------------

    def option(self, fd: int, level: int, name: int, size: int = 4) -> bytes:
        """getsockopt(2) for the emulator's own use."""
        block = Block(size)
        self._length.value = size
        self.do("getsockopt", fd, level, name, block.address, self._length_address)
        return block.bytes(self._length.value)

    def set_option(self, fd: int, level: int, name: int, value: bytes) -> None:
        """setsockopt(2) for the emulator's own use."""
        block = Block(value)
        self.do("setsockopt", fd, level, name, block.address, len(value))

    def bind_to_device(self, fd: int, device: bytes) -> None:
        """Confine a socket to one interface."""
        self.set_option(fd, SOL_SOCKET, SO_BINDTODEVICE, device)

    def attach_filter(self, fd: int, program: bytes) -> None:
        """SO_ATTACH_FILTER: `program` is an array of struct sock_filter."""
        code = Block(program)
        self.set_option(
            fd, SOL_SOCKET, SocketOption.SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, code.address)
        )

    def lock_filter(self, fd: int) -> None:
        """SO_LOCK_FILTER: the guest can't take the filter away."""
        self.set_option(fd, SOL_SOCKET, SocketOption.SO_LOCK_FILTER, struct.pack("@i", 1))

    def move(self, name: str, fd: int, view: memoryview, flags: int) -> int:
        """The short way of "sendto" and "recvfrom" over one view, without an address; -1 if it would have to wait."""
        function = self.functions[name]
        try:
            address = bytes(view) if view.readonly else _address(_char_at(view))
            result: int = function(fd, address, len(view), flags | _NEVER_BLOCK, None, 0)
        except (*FAILURES, ctypes.ArgumentError, TypeError) as error:
            raise linux_error(error) from None
        if result >= 0:
            return result
        number = ctypes.get_errno()
        if number == _EAGAIN:
            return -1
        raise LinuxError(by_number(number))

    # -- data ----------------------------------------------------------------------------------------------------

    def sendmsg(self, fd: int, iovec: HostIovec, flags: int, address: bytes | None = None, control: bytes = b"") -> int:
        """sendmsg(2); never blocks, never signals."""
        flags |= Msg.DONTWAIT | Msg.NOSIGNAL
        if iovec.count == 1 and not control:
            base, length = iovec.first
            if address is None:
                return self.do("sendto", fd, base, length, flags, None, 0)
            name = Block(address)
            return self.do("sendto", fd, base, length, flags, name.address, len(address))
        name = Block(address or b"")
        extra = Block(control)
        header = Block(
            _MSGHDR.pack(
                name.address if address else 0,
                len(address or b""),
                iovec.address,
                iovec.count,
                extra.address if control else 0,
                len(control),
                0,
            )
        )
        return self.do("sendmsg", fd, header.address, flags)

    def recv(self, fd: int, iovec: HostIovec, flags: int) -> int:
        """recvmsg(2) without an address or control data; never blocks."""
        if iovec.count == 1:
            base, length = iovec.first
            return self.do("recvfrom", fd, base, length, flags | Msg.DONTWAIT, None, None)
        return self.recvmsg(fd, iovec, flags, 0, False)[0]

    def recvmsg(
        self, fd: int, iovec: HostIovec, flags: int, control_size: int, want_name: bool = True
    ) -> tuple[int, bytes, bytes, int]:
        """recvmsg(2): count, sender's address, control data, flags; never blocks."""
        control = Block(control_size)
        header = Block(
            _MSGHDR.pack(
                self._name.address if want_name else 0,
                _ADDRESS_ROOM if want_name else 0,
                iovec.address,
                iovec.count,
                control.address if control_size else 0,
                control_size,
                0,
            )
        )
        count = self.do("recvmsg", fd, header.address, flags | Msg.DONTWAIT | Msg.CMSG_CLOEXEC)
        _, name_length, _, _, _, control_length, out_flags = _MSGHDR.unpack(header.bytes())
        name = self._name.bytes(name_length) if want_name else b""
        return count, name, control.bytes(control_length) if control_size else b"", out_flags & 0xFFFFFFFF

    def ioctl(self, fd: int, request: int, argument: bytes) -> bytes:
        """ioctl(2) with a block that may come back changed."""
        block = Block(argument)
        self.do("ioctl", fd, request, block.address)
        return block.bytes()

    # -- readiness -----------------------------------------------------------------------------------------------

    def poll(self, fd: int, events: int) -> int:
        """poll(2) of one descriptor, without waiting: its revents."""
        struct.pack_into("=iHH", self._one_poll, 0, fd, events & 0xFFFF, 0)
        if not self.do("poll", ctypes.addressof(self._one_poll), 1, 0):
            return 0
        return int(struct.unpack_from("=H", self._one_poll, 6)[0])

    def poll_many(self, interests: Sequence[tuple[int, int]]) -> list[int]:
        """poll(2) without waiting: revents of each (fd, events)."""
        flat = [word for fd, events in interests for word in (fd, events & 0xFFFF, 0)]
        layout = struct.Struct("=" + "iHH" * len(interests))
        block = Block(layout.pack(*flat))
        if not self.do("poll", block.address, len(interests), 0):
            return [0] * len(interests)
        return list(layout.unpack(block.bytes())[2::3])

    def epoll(self) -> HostEpoll:
        """A fresh epoll set."""
        try:
            return HostEpoll()
        except FAILURES as error:
            raise linux_error(error) from None

    # -- inotify -------------------------------------------------------------------------------------------------

    def inotify(self) -> int:
        """inotify_init1(2)."""
        return self.do("inotify_init1", SOCK_NONBLOCK | SOCK_CLOEXEC)

    def inotify_add_watch(self, fd: int, path: bytes, mask: int) -> int:
        """inotify_add_watch(2)."""
        return self.do("inotify_add_watch", fd, path, mask & 0xFFFFFFFF)

    def inotify_rm_watch(self, fd: int, watch: int) -> None:
        """inotify_rm_watch(2)."""
        self.do("inotify_rm_watch", fd, watch)


class HostEpoll:
    """One epoll set of the host; its keys are the host descriptors registered."""

    __slots__ = ("_epoll", "fd")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.fd = self._epoll.fileno()

    def add(self, fd: int, events: int) -> None:
        """EPOLL_CTL_ADD."""
        self._ctl(self._epoll.register, fd, events)

    def modify(self, fd: int, events: int) -> None:
        """EPOLL_CTL_MOD."""
        try:
            self._epoll.modify(fd, events)  # with every wait: hot
        except FAILURES as error:
            raise linux_error(error) from None

    def remove(self, fd: int) -> None:
        """EPOLL_CTL_DEL; a descriptor that is gone is no failure."""
        with contextlib.suppress(LinuxError):
            self._ctl(self._epoll.unregister, fd)

    def wait(self, limit: int) -> list[tuple[int, int]]:
        """epoll_wait(2) without waiting."""
        try:
            return self._epoll.poll(0, limit)
        except FAILURES as error:
            raise linux_error(error) from None

    def close(self) -> None:
        """Close the set."""
        self._epoll.close()

    def _ctl(self, function: Callable[..., None], *args: int) -> None:
        try:
            function(*args)
        except FAILURES as error:
            raise linux_error(error) from None
