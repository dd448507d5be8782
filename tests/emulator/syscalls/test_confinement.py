"""`--net loopback|none` holds against whoever looks for a way around it; the host never gets a pointer of the guest's.

A host socket on an address of the host that is not loopback is the outside.
"""

from __future__ import annotations

import gc
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.files.netlink import only_questions
from emulator.kernel.files.network import network_of
from tests.emulator.syscalls.rig import Rig, make_rig

AF_UNSPEC, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK = 0, 2, 10, 16, 17, 40
STREAM, DGRAM, RAW, SOCK_PACKET = 1, 2, 3, 10
SOL_SOCKET, BINDTODEVICE, BINDTOIFINDEX = 1, 25, 62
LINK = struct.pack("=IHHIIBxHiII", 32, 19, 5, 7, 0, 0, 0, 1, 0, 1)  # RTM_SETLINK: lo down


def outside_address() -> str | None:
    """An address of this machine that is not loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address


@pytest.fixture
def outside() -> Iterator[socket.socket]:
    address = outside_address()
    if address is None:
        pytest.skip("this machine has nothing but loopback")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((address, 0))
        receiver.setblocking(False)
        yield receiver


@pytest.fixture(params=["loopback", "none"])
def rig(request: Any) -> Rig:
    return make_rig(net=request.param)


def name_of(receiver: socket.socket, family: int = AF_INET) -> bytes:
    address, port = receiver.getsockname()
    return struct.pack("=H", family) + struct.pack("!H", port) + socket.inet_aton(address) + bytes(8)


def message(rig: Rig, name: bytes, control: bytes = b"") -> int:
    vector = rig.put(struct.pack("=QQ", rig.put(b"payload"), 7))
    return rig.put(
        struct.pack("=QI4xQQQQI4x", rig.put(name), len(name), vector, 1, rig.put(control), len(control), 0) + bytes(8)
    )


def silent(receiver: socket.socket) -> bool:
    try:
        receiver.recv(100)
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize("family", [AF_INET, AF_UNSPEC])
def test_no_datagram_leaves(rig: Rig, outside: socket.socket, family: int) -> None:
    """AF_UNSPEC in a sendto(2) address means AF_INET to the kernel."""
    fd = rig.call("socket", AF_INET, DGRAM, 0)
    name = name_of(outside, family)
    assert rig.errno("sendto", fd, rig.put(b"payload"), 7, 0, rig.put(name), 16) is E.ENETUNREACH
    assert rig.errno("sendmsg", fd, message(rig, name), 0) is E.ENETUNREACH
    assert rig.errno("sendmmsg", fd, message(rig, name), 1, 0) is E.ENETUNREACH
    assert silent(outside)


def test_a_disconnected_socket_stays_confined(rig: Rig, outside: socket.socket) -> None:
    """The kernel forgets the device when a datagram socket is dissolved from its peer."""
    fd = rig.call("socket", AF_INET, DGRAM, 0)
    rig.call("connect", fd, rig.put(bytes(16)), 16)
    host_fd = rig.t.fds.get(fd).need_host_fd()
    with socket.socket(fileno=os.dup(host_fd)) as same:
        assert same.getsockopt(socket.SOL_SOCKET, BINDTODEVICE, 16).rstrip(b"\0") == b"lo"


def test_the_device_cannot_be_changed(rig: Rig) -> None:
    fd = rig.call("socket", AF_INET, DGRAM, 0)
    for name, value in ((BINDTOIFINDEX, 2), (BINDTOIFINDEX, 0), (BINDTODEVICE, 0)):
        rig.result("setsockopt", fd, SOL_SOCKET, name, rig.put(struct.pack("=i", value)), 4)
    with socket.socket(fileno=os.dup(rig.t.fds.get(fd).need_host_fd())) as same:
        assert same.getsockopt(socket.SOL_SOCKET, BINDTODEVICE, 16).rstrip(b"\0") == b"lo"
    assert rig.errno("setsockopt", fd, SOL_SOCKET, BINDTOIFINDEX, rig.put(struct.pack("=i", 2)), 4) is E.ENODEV


@pytest.mark.parametrize(("level", "kind", "body"), [(0, 8, "=i8x"), (41, 50, "=16xi"), (41, 2, "=16xi")])
def test_no_message_chooses_the_interface(rig: Rig, level: int, kind: int, body: str) -> None:
    fd = rig.call("socket", AF_INET if level == 0 else AF_INET6, DGRAM, 0)
    data = struct.pack(body, 2)
    control = struct.pack("=Qii", 16 + len(data), level, kind) + data
    assert rig.errno("sendmsg", fd, message(rig, b"", control.ljust(-(-len(control) // 8) * 8, b"\0")), 0) is E.ENODEV


@pytest.mark.parametrize(
    ("family", "kind", "protocol", "expected"),
    [
        (AF_PACKET, RAW, 0x0300, E.EPERM),
        (AF_INET, SOCK_PACKET, 0x0300, E.EPERM),
        (AF_NETLINK, RAW, 4, E.EPROTONOSUPPORT),  # sock_diag: the host's connections
        (AF_NETLINK, RAW, 12, E.EPROTONOSUPPORT),  # netfilter
    ],
)
def test_no_other_family(rig: Rig, family: int, kind: int, protocol: int, expected: E) -> None:
    gc.collect()  # what other tests left
    before = len(os.listdir("/proc/self/fd"))
    found = rig.errno("socket", family, kind, protocol)
    if os.geteuid() == 0:
        assert found is expected
    assert found is not None
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("how", ["sendto", "write"])
def test_netlink_only_asks(rig: Rig, how: str) -> None:
    fd = rig.call("socket", AF_NETLINK, RAW, 0)
    where = rig.put(LINK)
    if how == "sendto":
        assert rig.errno("sendto", fd, where, len(LINK), 0, 0, 0) is E.EPERM
    else:
        with pytest.raises(LinuxError) as caught:
            rig.t.fds.get(fd).write(rig.t, [LINK])
        assert caught.value.errno is E.EPERM


def test_a_change_behind_a_question_is_seen() -> None:
    question = struct.pack("=IHHII", 17, 18, 0x301, 1, 0) + b"\0\0\0\0"
    assert only_questions(question)
    assert not only_questions(question + LINK)


def test_interfaces_are_not_the_guests_to_change(rig: Rig) -> None:
    fd = rig.call("socket", AF_INET, DGRAM, 0)
    ioctl = rig.t.fds.get(fd).ioctl
    for request, name, expected in ((0x8914, b"lo", E.EPERM), (0x8913, b"eth0", E.ENODEV), (0x8955, b"", E.ENXIO)):
        with pytest.raises(LinuxError) as caught:
            ioctl(rig.t, request, rig.put(name.ljust(68, b"\0")))
        assert caught.value.errno is expected


@pytest.mark.parametrize(
    "request_number",
    [0x8940, 0x8941, 0x894A, 0x894C, 0x8946, 0x8947, 0x8960, 0x8982, 0x8983, 0x8990, 0x89A0, 0x89E0, 0x89F0],
)
def test_requests_with_pointers_never_reach_the_host(request_number: int) -> None:
    """A bridge's SIOCGIFBR writes where the guest's bytes point: into the emulator.  SIOCGSKNS makes a descriptor."""
    rig = make_rig()
    fd = rig.call("socket", AF_INET, DGRAM, 0)
    door = network_of(rig.t).host
    asked: list[object] = []

    def ioctl(*words: int) -> int:
        asked.append(words)
        return 0

    door.functions = {**door.functions, "ioctl": ioctl}
    with pytest.raises(LinuxError) as caught:
        rig.t.fds.get(fd).ioctl(rig.t, request_number, rig.room(68))
    assert caught.value.errno in (E.ENOTTY, E.EOPNOTSUPP)
    assert asked == []


def test_arp_requests_have_room_for_their_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    """struct arpreq is longer than struct ifreq."""
    rig = make_rig()
    fd = rig.call("socket", AF_INET, DGRAM, 0)
    door = network_of(rig.t).host
    sizes: list[int] = []
    real = door.ioctl

    def ioctl(fd: int, request: int, block: bytes) -> bytes:
        sizes.append(len(block))
        return real(fd, request, block)

    monkeypatch.setattr(door, "ioctl", ioctl)
    with pytest.raises(LinuxError) as caught:
        rig.t.fds.get(fd).ioctl(
            rig.t, 0x8954, rig.put(struct.pack("=HH4s", AF_INET, 0, b"\x7f\0\0\1").ljust(68, b"\0"))
        )
    assert caught.value.errno in (E.ENXIO, E.ENODEV)
    assert sizes == [68]


@pytest.mark.parametrize(("level", "name"), [(0, 64), (41, 64), (0, 96), (0, 128), (276, 2), (283, 4)])
def test_options_with_pointers_never_reach_the_host(level: int, name: int) -> None:
    rig = make_rig()
    fd = rig.call("socket", AF_INET, RAW if os.geteuid() == 0 else DGRAM, 255 if os.geteuid() == 0 else 0)
    door = network_of(rig.t).host
    door.functions = {**door.functions, "setsockopt": lambda *_: 0}
    assert rig.errno("setsockopt", fd, level, name, rig.room(512), 512) is E.ENOPROTOOPT


def test_own_headers_are_refused(rig: Rig) -> None:
    fd = rig.call("socket", AF_INET, DGRAM, 0)
    assert rig.errno("setsockopt", fd, 0, 3, rig.put(struct.pack("=i", 1)), 4) is E.EPERM
