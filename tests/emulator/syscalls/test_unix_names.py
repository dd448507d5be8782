"""AF_UNIX under --root: names stay inside, the guest sees its own, and nothing of the host's answers."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from emulator.abi.errno import E
from tests.emulator.syscalls.rig import Rig, make_rig
from tests.emulator.syscalls.test_sockets import AF_UNIX, DGRAM, STREAM, bind, unix


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    (tmp_path / "root" / "tmp").mkdir(parents=True)
    return make_rig(root=str(tmp_path / "root"))


def name(rig: Rig, call: str, fd: int) -> bytes:
    out, length = rig.room(128), rig.put(struct.pack("=i", 128))
    rig.call(call, fd, out, length)
    return rig.t.memory.read(out, rig.ints(length, 1)[0])


def connect(rig: Rig, fd: int, address: bytes) -> E | None:
    return rig.errno("connect", fd, rig.put(address), len(address))


@pytest.mark.parametrize("path", [b"/tmp/s", b"/../../../tmp/s", b"/tmp/" + b"n" * 100])
def test_a_bound_name_is_in_the_jail_and_unchanged(rig: Rig, tmp_path: Path, path: bytes) -> None:
    server, client = rig.call("socket", AF_UNIX, STREAM, 0), rig.call("socket", AF_UNIX, STREAM, 0)
    address = unix(path + b"\0")
    assert bind(rig, server, address) is None
    assert bind(rig, client, address) is E.EADDRINUSE
    assert (tmp_path / "root" / "tmp" / path.rsplit(b"/", 1)[1].decode()).is_socket()
    rig.call("listen", server, 5)
    assert connect(rig, client, address) is None
    accepted = rig.call("accept", server, 0, 0)
    assert name(rig, "getsockname", server) == address
    assert name(rig, "getsockname", accepted) == address
    assert name(rig, "getpeername", client) == address


def test_no_way_out(rig: Rig, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(str(tmp_path / "outside"))
        outside.listen()
        (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
        (tmp_path / "root" / "up").symlink_to("../outside")
        for path in (b"/../outside", b"/link", b"/up", bytes(tmp_path) + b"/outside"):
            fd = rig.call("socket", AF_UNIX, STREAM, 0)
            assert connect(rig, fd, unix(path + b"\0")) is E.ENOENT
            assert bind(rig, rig.call("socket", AF_UNIX, STREAM, 0), unix(b"/link\0")) is E.EADDRINUSE


def test_a_sender_is_named_as_the_guest_knows_it(rig: Rig) -> None:
    receiver, sender = rig.call("socket", AF_UNIX, DGRAM, 0), rig.call("socket", AF_UNIX, DGRAM, 0)
    assert bind(rig, receiver, unix(b"/tmp/r\0")) is None
    assert bind(rig, sender, unix(b"/tmp/s\0")) is None
    to = rig.put(unix(b"/tmp/r\0"))
    assert rig.call("sendto", sender, rig.put(b"x"), 1, 0, to, 9) == 1
    out, length = rig.room(128), rig.put(struct.pack("=i", 128))
    assert rig.call("recvfrom", receiver, rig.room(8), 8, 0, out, length) == 1
    assert rig.t.memory.read(out, rig.ints(length, 1)[0]) == unix(b"/tmp/s\0")


def test_a_host_process_connects_to_a_guests_path(tmp_path: Path) -> None:
    rig = make_rig()
    server = rig.call("socket", AF_UNIX, STREAM, 0)
    assert bind(rig, server, unix(bytes(tmp_path / "s") + b"\0")) is None
    rig.call("listen", server, 1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        assert client.getpeername() == str(tmp_path / "s")
        accepted = rig.call("accept", server, 0, 0)
        client.send(b"hi")
        assert rig.call("recvfrom", accepted, rig.room(8), 8, 0, 0, 0) == 2
