"""AF_NETLINK under `--net loopback|none`: the host's interfaces do not show, and nothing can be changed.

Rule: a message about another interface than lo is dropped on its way in, as if it were not in this network namespace;
everything else, sequence numbers and errors included, passes.  On the way out only questions (RTM_GET*) do.
Source: netlink(7), rtnetlink(7).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.polling import Poll
from emulator.abi.sockets import Msg
from emulator.errors import LinuxError
from emulator.kernel.files.description import ReadBuffers, WriteBuffers
from emulator.kernel.files.iovecs import Iovec, ViewIovec
from emulator.kernel.files.socket import SocketDescription
from emulator.kernel.host_sockets import Block, HostIovec

if TYPE_CHECKING:
    from emulator.kernel.files.network import HostAddress
    from emulator.kernel.tasks import Task

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE, _NEW_NEIGHBOUR = 16, 20, 24, 28
_LOOPBACK_INDEX = 1
_ROOM = 1 << 18
_FIRST_KIND = 16  # NLMSG_MIN_TYPE, RTM_BASE: kinds come in fours, NEW DEL GET SET
_GET = 2


def only_questions(data: bytes) -> bool:
    """Does a datagram ask without changing anything?"""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if kind >= _FIRST_KIND and kind & 3 != _GET:
            return False
        if length < _HEADER.size:
            break
        at += -(-length // 4) * 4
    return True


def only_loopback(data: bytes) -> bytes:
    """The messages of one datagram that a namespace with nothing but lo would have sent."""
    kept = []
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            break
        body = at + _HEADER.size
        index = int.from_bytes(data[body + 4 : body + 8], "little")
        foreign = kind in (_NEW_LINK, _NEW_ADDRESS, _NEW_NEIGHBOUR) and index != _LOOPBACK_INDEX
        if not foreign and kind != _NEW_ROUTE:
            kept.append(data[at : at + length].ljust(-(-length // 4) * 4, b"\0"))
        at += -(-length // 4) * 4
    return b"".join(kept)


class NetlinkDescription(SocketDescription):
    """A netlink socket that sees only lo."""

    __slots__ = ()

    def send(self, t: Task, iovec: Iovec, flags: int, address: HostAddress | None = None, control: bytes = b"") -> int:
        """sendmsg(2): EPERM for what would change the host's network.  What is checked is what is sent: a copy."""
        if iovec.total > _ROOM:
            raise LinuxError(E.EMSGSIZE)
        data = iovec.gather()
        if not only_questions(data):
            raise LinuxError(E.EPERM)
        return super().send(t, ViewIovec([data]), flags, address, control)

    def write(self, t: Task, buffers: WriteBuffers) -> int:
        """write(2)."""
        return self.send(t, ViewIovec(buffers), 0)

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        """read(2)."""
        return self.receive_message(t, ViewIovec(buffers), 0, 0, False)[0]

    def receive(self, t: Task, iovec: Iovec, flags: int) -> int:
        """recv(2)."""
        return self.receive_message(t, iovec, flags, 0, False)[0]

    def receive_message(
        self, t: Task, iovec: Iovec, flags: int, control_size: int, want_name: bool
    ) -> tuple[int, bytes, bytes, int]:
        """recvmsg(2)."""
        host = self.network.host
        block = Block(_ROOM)
        room = HostIovec([(block.address, block.size)])
        while True:
            try:
                count, name, control, out = host.recvmsg(self.fd, room, flags, control_size, want_name)
                data = only_loopback(block.bytes(count)) if count else b""
                if count and not data:
                    if flags & Msg.PEEK:
                        host.recvmsg(self.fd, room, 0, 0, False)
                    continue
            except LinuxError as error:
                if error.errno is not E.EAGAIN or not self.blocks(flags):
                    raise
                self.sleep(t, "netlink_recvmsg", Poll.IN, self.receive_timeout_ns)
            filled = iovec.fill(data)
            if filled < len(data):
                out |= Msg.TRUNC
            return len(data) if flags & Msg.TRUNC else filled, name, control, out
