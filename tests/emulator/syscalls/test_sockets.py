"""Sockets against the host kernel, without a CPU: results, errnos, blocking, pids, the --net policy."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from emulator.abi.errno import E
from emulator.abi.signals import Signal
from emulator.kernel.waits import Block
from tests.emulator.syscalls.rig import BAD, BASE, Rig, make_rig

AF_UNIX, AF_INET = 1, 2
STREAM, DGRAM, SEQPACKET = 1, 2, 5
NONBLOCK, CLOEXEC = 0o4000, 0o2000000
SOL_SOCKET = 1


@pytest.fixture
def rig() -> Rig:
    return make_rig()


def unix(path: bytes) -> bytes:
    return struct.pack("=H", AF_UNIX) + path


def inet(host: bytes, port: int) -> bytes:
    return struct.pack("=H", AF_INET) + struct.pack(">H", port) + host + b"\0" * 8


def pair(rig: Rig, kind: int = STREAM, family: int = AF_UNIX) -> tuple[int, int]:
    where = rig.room(8)
    rig.call("socketpair", family, kind, 0, where)
    one, two = rig.ints(where, 2)
    return one, two


def bind(rig: Rig, fd: int, address: bytes) -> E | None:
    return rig.errno("bind", fd, rig.put(address), len(address))


def test_second_bind_to_a_path_is_eaddrinuse_and_the_program_goes_on(rig: Rig, tmp_path: Path) -> None:
    address = unix(bytes(tmp_path / "s") + b"\0")
    one = rig.call("socket", AF_UNIX, STREAM, 0)
    two = rig.call("socket", AF_UNIX, STREAM, 0)
    assert bind(rig, one, address) is None
    assert bind(rig, two, address) is E.EADDRINUSE
    assert bind(rig, one, address) is E.EADDRINUSE
    assert bind(rig, one, unix(bytes(tmp_path / "t") + b"\0")) is E.EINVAL
    assert rig.call("listen", one, 5) == 0


def test_address_bytes_come_back_unchanged(rig: Rig, tmp_path: Path) -> None:
    odd = bytes(tmp_path) + b"//./\xff\xfe\x80s"
    fd = rig.call("socket", AF_UNIX, STREAM, 0)
    assert bind(rig, fd, unix(odd)) is None
    out, length = rig.room(128), rig.put(struct.pack("=i", 128))
    rig.call("getsockname", fd, out, length)
    (size,) = rig.ints(length, 1)
    assert rig.t.memory.read(out, size) == unix(odd) + b"\0"


def test_order_of_checks(rig: Rig) -> None:
    socket = rig.call("socket", AF_INET, STREAM, 0)
    eventfd = rig.call("eventfd2", 0, 0)
    assert rig.errno("bind", 99, BAD, -1) is E.EBADF
    assert rig.errno("bind", eventfd, BAD, -1) is E.ENOTSOCK
    assert rig.errno("bind", socket, BAD, -1) is E.EINVAL
    assert rig.errno("bind", socket, BAD, 129) is E.EINVAL
    assert rig.errno("bind", socket, BAD, 16) is E.EFAULT
    assert rig.errno("connect", eventfd, BAD, 16) is E.EFAULT
    assert rig.errno("connect", eventfd, BASE, 16) is E.ENOTSOCK
    assert rig.errno("accept4", eventfd, 0, 0, 1) is E.EINVAL
    assert rig.errno("accept4", eventfd, 0, 0, 0) is E.ENOTSOCK
    assert rig.errno("accept4", socket, 0, 0, 0) is E.EINVAL
    assert rig.errno("socket", 999, STREAM, 0) is E.EAFNOSUPPORT
    assert rig.errno("socket", AF_INET, STREAM | 0x100, 0) is E.EINVAL
    assert rig.errno("socketpair", AF_INET, STREAM, 0, BAD) is E.EFAULT
    assert rig.errno("socketpair", AF_INET, STREAM, 0, rig.room(8)) is E.EOPNOTSUPP
    assert rig.errno("setsockopt", socket, SOL_SOCKET, 9999, rig.room(4), 4) is E.ENOPROTOOPT
    assert rig.errno("getsockopt", socket, SOL_SOCKET, 2, BAD, BAD) is E.EFAULT
    assert rig.errno("getpeername", socket, BAD, BAD) is E.ENOTCONN
    assert rig.errno("sendmsg", socket, BAD, 0) is E.EFAULT


def test_blocking_is_data(rig: Rig) -> None:
    one, two = pair(rig)
    buffer = rig.room(16)
    with pytest.raises(Block) as blocked:
        rig.call("recvfrom", one, buffer, 16, 0, 0, 0)
    assert blocked.value.wait.host
    rig.call("sendto", two, rig.put(b"hello"), 5, 0, 0, 0)
    assert rig.call("recvfrom", one, buffer, 16, 0, 0, 0) == 5
    assert rig.t.memory.read(buffer, 5) == b"hello"
    assert rig.errno("recvfrom", one, buffer, 16, 0x40, 0, 0) is E.EAGAIN


def test_bad_pointer_is_noticed_where_the_kernel_notices(rig: Rig) -> None:
    one, two = pair(rig, DGRAM)
    assert rig.errno("recvfrom", one, BAD, 16, 0x40, 0, 0) is E.EAGAIN
    rig.call("sendto", two, rig.put(b"lost"), 4, 0, 0, 0)
    assert rig.errno("recvfrom", one, BAD, 16, 0x40, 0, 0) is E.EFAULT
    assert rig.errno("recvfrom", one, rig.room(16), 16, 0x40, 0, 0) is E.EAGAIN


def test_receive_timeout(rig: Rig) -> None:
    one, _ = pair(rig)
    rig.call("setsockopt", one, SOL_SOCKET, 20, rig.put(struct.pack("=qq", 0, 1000)), 16)
    with pytest.raises(Block) as blocked:
        rig.call("recvfrom", one, rig.room(8), 8, 0, 0, 0)
    deadline = blocked.value.wait.deadline_ns
    assert deadline is not None
    assert blocked.value.wait.restart is E.EINTR
    rig.t.call.deadline_ns = deadline - 10_000_000
    assert rig.errno("recvfrom", one, rig.room(8), 8, 0, 0, 0) is E.EAGAIN


def test_waitall_collects_over_several_wakeups(rig: Rig) -> None:
    one, two = pair(rig)
    buffer = rig.room(8)
    rig.call("sendto", two, rig.put(b"abc"), 3, 0, 0, 0)
    with pytest.raises(Block) as blocked:
        rig.call("recvfrom", one, buffer, 8, 0x100, 0, 0)
    interrupted = blocked.value.wait.interrupted
    assert interrupted is not None
    assert interrupted(rig.t) == 3
    memo, rig.t.call.memo = rig.t.call.memo, None
    rig.call("sendto", two, rig.put(b"defgh"), 5, 0, 0, 0)
    rig.t.call.memo = memo
    assert rig.call("recvfrom", one, buffer, 8, 0x100, 0, 0) == 8
    assert rig.t.memory.read(buffer, 8) == b"abcdefgh"


def test_broken_pipe_raises_sigpipe_unless_told_not_to(rig: Rig) -> None:
    one, two = pair(rig)
    rig.t.fds.close(two)
    data = rig.put(b"x")
    assert rig.errno("sendto", one, data, 1, 0x4000, 0, 0) is E.EPIPE
    assert not rig.t.signals.pending.mask
    assert rig.errno("sendto", one, data, 1, 0, 0, 0) is E.EPIPE
    assert rig.t.signals.pending.mask >> (Signal.SIGPIPE - 1) & 1


def test_peer_credentials_are_the_guests(rig: Rig) -> None:
    one, _ = pair(rig)
    value, length = rig.room(12), rig.put(struct.pack("=i", 12))
    rig.call("getsockopt", one, SOL_SOCKET, 17, value, length)
    assert rig.ints(value, 1) == (rig.t.group.tgid,)


def test_so_error_is_the_guests_number(rig: Rig) -> None:
    fd = rig.call("socket", AF_INET, STREAM | NONBLOCK, 0)
    assert rig.errno("connect", fd, rig.put(inet(b"\x7f\0\0\1", 1)), 16) is E.EINPROGRESS
    numbers = {**rig.t.arch.errno, E.ECONNREFUSED: 146}  # MIPS's
    rig.t.arch = replace(rig.t.arch, errno=numbers)
    value, length = rig.room(4), rig.put(struct.pack("=i", 4))
    rig.call("getsockopt", fd, SOL_SOCKET, 4, value, length)
    assert rig.ints(value, 1) == (146,)


def msghdr(rig: Rig, data: int, size: int, control: int = 0, control_size: int = 0) -> int:
    iovec = rig.put(struct.pack("=QQ", data, size))
    return rig.put(struct.pack("=QI4xQQQQI4x", 0, 0, iovec, 1, control, control_size, 0))


def test_any_description_travels_in_a_message(rig: Rig) -> None:
    one, two = pair(rig)
    event = rig.call("eventfd2", 7, 0)
    control = struct.pack("=Qiii4x", 20, SOL_SOCKET, 1, event)
    message = msghdr(rig, rig.put(b"x"), 1, rig.put(control), len(control))
    assert rig.call("sendmsg", one, message, 0) == 1
    original = rig.t.fds.get(event)
    rig.t.fds.close(event)
    room = rig.room(64)
    message = msghdr(rig, rig.room(8), 8, room, 64)
    assert rig.call("recvmsg", two, message, 0x40000000) == 1
    length, level, kind, fd = struct.unpack("=Qiii", rig.t.memory.read(room, 20))
    assert (length, level, kind) == (20, SOL_SOCKET, 1)
    assert rig.t.fds.get(fd) is original
    assert rig.t.fds.cloexec(fd)
    assert original.references == 1


def test_a_dropped_message_drops_its_descriptions(rig: Rig) -> None:
    one, two = pair(rig)
    event = rig.call("eventfd2", 0, 0)
    original = rig.t.fds.get(event)
    control = struct.pack("=Qiii4x", 20, SOL_SOCKET, 1, event)
    message = msghdr(rig, rig.put(b"x"), 1, rig.put(control), len(control))
    rig.call("sendmsg", one, message, 0)
    assert original.references == 2
    rig.t.fds.close(two)
    assert original.references == 1


def test_credentials_carry_guest_pids(rig: Rig) -> None:
    one, two = pair(rig, DGRAM)
    rig.call("setsockopt", two, SOL_SOCKET, 16, rig.put(struct.pack("=i", 1)), 4)
    rig.call("sendto", one, rig.put(b"x"), 1, 0, 0, 0)
    room = rig.room(64)
    rig.call("recvmsg", two, msghdr(rig, rig.room(8), 8, room, 64), 0)
    _, _, kind, pid, _, _ = struct.unpack("=QiiiII", rig.t.memory.read(room, 28))
    assert (kind, pid) == (2, rig.t.group.tgid)


def test_no_network() -> None:
    rig = make_rig(net="none")
    fd = rig.call("socket", AF_INET, STREAM, 0)
    assert rig.errno("connect", fd, rig.put(inet(b"\x7f\0\0\1", 80)), 16) is E.ENETUNREACH
    assert bind(rig, fd, inet(b"\x7f\0\0\1", 0)) is E.EADDRNOTAVAIL
    assert bind(rig, fd, inet(b"\0\0\0\0", 0)) is None


def test_loopback_only() -> None:
    rig = make_rig(net="loopback")
    fd = rig.call("socket", AF_INET, STREAM, 0)
    assert rig.errno("connect", fd, rig.put(inet(b"\x08\x08\x08\x08", 80)), 16) is E.ENETUNREACH
    assert bind(rig, fd, inet(b"\x7f\0\0\1", 0)) is None


@pytest.mark.parametrize("net", ["loopback", "none"])
def test_only_the_loopback_interface_shows(net: str) -> None:
    rig = make_rig(net=net)
    fd = rig.call("socket", 16, 3, 0)
    request = struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 7, 0, 0, 0, 0, 0, 0)  # RTM_GETLINK, a dump
    rig.call("sendto", fd, rig.put(request), len(request), 0, rig.put(struct.pack("=HHII", 16, 0, 0, 0)), 12)
    buffer = rig.room(16384)
    indices: list[int] = []
    done = False
    while not done:
        count = rig.call("recvfrom", fd, buffer, 16384, 0, 0, 0)
        data, at = rig.t.memory.read(buffer, count), 0
        while at < count:
            length, kind = struct.unpack_from("=IH", data, at)
            done = done or kind == 3
            if kind == 16:
                indices.append(struct.unpack_from("=i", data, at + 20)[0])
            at += -(-length // 4) * 4
    assert indices == [1]
