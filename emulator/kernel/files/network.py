"""What sockets share machine-wide: the `--net` policy, AF_UNIX names and peers, descriptions in flight.

Rule: sockets are the host's; what only the emulator can know (which guest process is at the other end, which guest
description a passed descriptor means) is kept here.  Source: unix(7), network_namespaces(7).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.sockets import (
    IP_PKTINFO,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPV6_2292PKTINFO,
    IPV6_PKTINFO,
    LOOPBACK_INDEX,
    NETLINK_ROUTE,
    AddressFamily,
    SocketType,
    is_loopback,
    is_wildcard,
)
from emulator.errors import LinuxError
from emulator.kernel.host_sockets import HostSockets

if TYPE_CHECKING:
    from emulator.kernel.files.description import Description
    from emulator.kernel.files.socket import SocketDescription
    from emulator.kernel.host import Host
    from emulator.kernel.tasks import Task

_IP = (AddressFamily.AF_INET, AddressFamily.AF_INET6)
_INET = AddressFamily.AF_INET.to_bytes(2, "little")
_INTERFACE_INDEX = {  # control message -> where in its data the interface stands
    (IPPROTO_IP, IP_PKTINFO): 0,
    (IPPROTO_IPV6, IPV6_PKTINFO): 16,
    (IPPROTO_IPV6, IPV6_2292PKTINFO): 16,
}
_DROP_ALL = b"\x06\0\0\0\0\0\0\0"  # classic BPF: ret #0


class NetPolicy(StrEnum):
    """--net: what of the host's network the guest reaches."""

    HOST = "host"
    LOOPBACK = "loopback"
    NONE = "none"


@dataclass(slots=True)
class InFlight:
    """A description on its way through an AF_UNIX message; the host carries a pipe's read end in its place."""

    description: Description
    token: int  # the pipe's write end: POLLERR once no copy of the read end is left anywhere


@dataclass(frozen=True, slots=True)
class HostAddress:
    """A socket address as the host gets it.

    `directory`: the host descriptor a relative AF_UNIX path starts from; `key` finds a guest socket bound there
    (`Network.find`); `holder` keeps the directory open.
    """

    data: bytes
    directory: int | None = None
    key: object = None
    holder: object = None


@dataclass(slots=True)
class Network:
    """One machine's network."""

    host: HostSockets
    files: Host
    policy: NetPolicy = NetPolicy.HOST
    in_flight: dict[tuple[int, int], InFlight] = field(default_factory=dict)
    _by_name: weakref.WeakValueDictionary[object, SocketDescription] = field(
        default_factory=weakref.WeakValueDictionary
    )
    _guest_names: dict[bytes, bytes] = field(default_factory=dict)  # host sun_path -> the guest's (under --root)

    def is_ours(self, host_pid: int) -> bool:
        """Does the host mean a guest process by this pid?"""
        return host_pid == self.host.pid()

    # -- policy --------------------------------------------------------------------------------------------------

    def at(self, address: HostAddress | None, call: Callable[[], None], umask: int = 0) -> None:
        """Run a host call where the address means what it should."""
        if address is None or address.directory is None:
            call()
        else:
            self.host.in_directory(address.directory, call, umask)

    @property
    def confined(self) -> bool:
        """Does --net keep the guest from the host's interfaces?"""
        return self.policy is not NetPolicy.HOST

    def restrict(self, fd: int, family: int, kind: int, protocol: int) -> None:
        """Cut a fresh socket off from what the policy forbids, for wildcard binds and multicast too."""
        if not self.confined or family == AddressFamily.AF_UNIX:
            return
        try:
            if family == AddressFamily.AF_PACKET or kind == SocketType.SOCK_PACKET:
                raise LinuxError(E.EPERM)
            if family == AddressFamily.AF_NETLINK:
                if protocol != NETLINK_ROUTE:
                    raise LinuxError(E.EPROTONOSUPPORT)
                return
            if family not in _IP:
                raise LinuxError(E.EAFNOSUPPORT)
            self.confine(fd)
            if self.policy is NetPolicy.NONE:
                self.host.attach_filter(fd, _DROP_ALL)
                self.host.lock_filter(fd)
        except LinuxError:
            self.host.close(fd)
            raise

    def confine(self, fd: int) -> None:
        """Bind to lo; __udp_disconnect() undoes it, so it is done again after a connect(2) to AF_UNSPEC."""
        self.host.bind_to_device(fd, b"lo")

    def check_target(self, family: int, address: bytes) -> None:
        """Fail as a network namespace without those interfaces would: connect(2) and sendto(2)."""
        if not self.confined or family not in _IP or len(address) < 8:
            return
        named = int.from_bytes(address[:2], "little")
        if named == AddressFamily.AF_UNSPEC and family == AddressFamily.AF_INET:
            address = _INET + address[2:]  # udp_sendmsg() and raw_sendmsg() take it for AF_INET
        elif named not in _IP:
            return
        local = is_loopback(address) or is_wildcard(address)
        if self.policy is NetPolicy.NONE or not local:
            raise LinuxError(E.ENETUNREACH)

    def check_local(self, family: int, address: bytes) -> None:
        """The same for bind(2)."""
        if not self.confined or family not in _IP or len(address) < 8 or is_wildcard(address):
            return
        if int.from_bytes(address[:2], "little") in _IP and (self.policy is NetPolicy.NONE or not is_loopback(address)):
            raise LinuxError(E.EADDRNOTAVAIL)

    def check_ancillary(self, level: int, kind: int, data: bytes) -> None:
        """IP_PKTINFO and IPV6_PKTINFO choose the interface, whatever the socket is bound to: ENODEV but for lo."""
        where = _INTERFACE_INDEX.get((level, kind))
        if not self.confined or where is None:
            return
        if int.from_bytes(data[where : where + 4], "little") not in (0, LOOPBACK_INDEX):
            raise LinuxError(E.ENODEV)

    def check_abstract(self, address: bytes) -> None:
        """Abstract names belong to the network namespace: without the host's, only the guest's own are there."""
        if self.confined and address not in self._by_name:
            raise LinuxError(E.ECONNREFUSED)

    # -- AF_UNIX names -------------------------------------------------------------------------------------------

    def enter(self, key: object, socket: SocketDescription) -> None:
        """A guest socket is bound: `key` is its abstract address, or (st_dev, st_ino) of its path."""
        self._by_name[key] = socket

    def find(self, key: object) -> SocketDescription | None:
        """The guest socket bound there; None when it is the host's or nobody's."""
        return self._by_name.get(key)

    def remember(self, host_path: bytes, guest_path: bytes) -> None:
        """Under --root: the host knows this socket by another path than the guest."""
        self._guest_names[host_path] = guest_path

    def forget(self, host_path: bytes) -> None:
        """Nobody is bound there any more."""
        self._guest_names.pop(host_path, None)

    def to_guest(self, address: bytes) -> bytes:
        """An address the host reported, as the guest knows it."""
        if not self._guest_names or address[:2] != b"\1\0" or len(address) <= 2 or address[2] == 0:
            return address
        path = address[2:].split(b"\0", 1)[0]
        known = self._guest_names.get(path)
        return address if known is None else known

    # -- descriptions in flight ----------------------------------------------------------------------------------

    def send_description(self, description: Description) -> int:
        """Take a description into a message; returns a host descriptor to send, which the caller closes."""
        read_end, write_end = self.host.token()
        status = self.files.fstat(read_end)
        self.in_flight[(status.st_dev, status.st_ino)] = InFlight(description.retain(), write_end)
        return read_end

    def receive_description(self, fd: int) -> Description | None:
        """What a received host descriptor stands for; None if it came from a host process."""
        if not self.in_flight:
            return None
        status = self.files.fstat(fd)
        flight = self.in_flight.get((status.st_dev, status.st_ino))
        return None if flight is None else flight.description

    def sweep(self) -> None:
        """Let go of descriptions whose messages are read or dropped."""
        if not self.in_flight:
            return
        flights = list(self.in_flight.items())
        ready = self.host.poll_many([(flight.token, 0) for _, flight in flights])
        for (key, flight), revents in zip(flights, ready, strict=True):
            if revents and self.in_flight.pop(key, None) is not None:
                self.host.close(flight.token)
                flight.description.release()


def network_of(t: Task) -> Network:
    """The network of the machine `t` runs on."""
    kernel = t.kernel
    network: Network | None = kernel.extensions.get("network")
    if network is None:
        network = Network(HostSockets(), kernel.host, NetPolicy(kernel.config.net))
        kernel.extensions["network"] = network
    return network
