"""Whatever the host says or Python raises, the guest gets a defined errno in its own numbering.

Every errno and every errno-less failure, in every socket call, for every ISA's numbering in `abi`.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from emulator.abi.errno import E
from emulator.abi.numbers import errno_numbers
from emulator.errors import LinuxError
from emulator.kernel.files.network import network_of
from emulator.kernel.waits import Block
from tests.emulator.syscalls.rig import Rig, make_rig

NUMBERINGS = ("generic", "mips", "ppc")
HOST_NAMES = {number: name for number, name in errno.errorcode.items() if number != errno.EINTR}
_SAME = {"EDEADLOCK": "EDEADLK", "EWOULDBLOCK": "EAGAIN", "ENOTSUP": "EOPNOTSUPP"}
PYTHON_FAILURES: tuple[tuple[BaseException, E], ...] = (
    (OSError("AF_UNIX path too long"), E.EINVAL),
    (OverflowError("getsockaddrarg: port must be 0-65535"), E.EINVAL),
    (OverflowError("Python int too large to convert to C int"), E.EINVAL),
    (ValueError("negative buffersize in recv"), E.EINVAL),
    (ValueError("I/O operation on closed file"), E.EBADF),
    (TimeoutError("timed out"), E.ETIMEDOUT),
    (UnicodeEncodeError("idna", "x", 0, 1, "label too long"), E.EILSEQ),
    (MemoryError(), E.ENOMEM),
    (TypeError("an integer is required"), E.EIO),
    (ctypes.ArgumentError("argument 2: wrong type"), E.EIO),
)


def calls(rig: Rig) -> Mapping[str, tuple[int, ...]]:
    """Every socket call with arguments that get as far as the host; made while the host still answers."""
    where = rig.room(8)
    rig.call("socketpair", 1, 1, 0, where)
    fd = rig.ints(where, 1)[0]
    name = rig.put(struct.pack("=HH12x", 2, 0))
    buffer, room = rig.room(16), rig.room(128)
    length = rig.put(struct.pack("=i", 16))
    message = rig.put(
        struct.pack("=QI4xQQQQI4x", 0, 0, rig.put(struct.pack("=QQ", buffer, 16)), 1, 0, 0, 0) + b"\0" * 8
    )
    return {
        "socket": (2, 1, 0),
        "socketpair": (1, 1, 0, where),
        "bind": (fd, name, 16),
        "listen": (fd, 1),
        "accept": (fd, 0, 0),
        "accept4": (fd, room, length, 0),
        "connect": (fd, name, 16),
        "shutdown": (fd, 2),
        "getsockname": (fd, room, length),
        "getpeername": (fd, room, length),
        "setsockopt": (fd, 1, 2, length, 4),
        "getsockopt": (fd, 1, 3, room, length),
        "sendto": (fd, buffer, 16, 0, 0, 0),
        "recvfrom": (fd, buffer, 16, 0, room, length),
        "sendmsg": (fd, message, 0),
        "recvmsg": (fd, message, 0),
        "sendmmsg": (fd, message, 1, 0),
        "recvmmsg": (fd, message, 1, 0, 0),
    }


def inject(rig: Rig, fail: Callable[..., int]) -> None:
    """From now on every host call of the socket door fails."""
    door = network_of(rig.t).host
    door.functions = dict.fromkeys(door.functions, fail)


def register(rig: Rig, name: str, args: tuple[int, ...]) -> int | str:
    """The result register, or what the task waits for."""
    try:
        return rig.call(name, *args)
    except LinuxError as error:
        return -rig.t.arch.errno[error.errno]
    except Block as block:
        rig.t.call.finish()
        return block.wait.what


@pytest.fixture(params=NUMBERINGS)
def rig(request: Any) -> Rig:
    fresh = make_rig()
    fresh.t.arch = replace(fresh.t.arch, errno=errno_numbers(request.param))
    return fresh


def test_every_errno_in_every_call(rig: Rig) -> None:
    wrong = []
    arguments = calls(rig)
    for number, host_name in HOST_NAMES.items():

        def fail(*_: object, number: int = number) -> int:
            ctypes.set_errno(number)
            return -1

        inject(rig, fail)
        expected = -rig.t.arch.errno[E[_SAME.get(host_name, host_name)]]
        for name, args in arguments.items():
            found = register(rig, name, args)
            waits = number == errno.EAGAIN or (number in (errno.EINPROGRESS, errno.EALREADY) and name == "connect")
            if found != expected and not (waits and isinstance(found, str)):
                wrong.append((name, host_name, found, expected))
    assert not wrong


@pytest.mark.parametrize("failure", PYTHON_FAILURES, ids=lambda pair: f"{type(pair[0]).__name__}-{pair[1].name}")
def test_every_errnoless_failure_in_every_call(rig: Rig, failure: tuple[BaseException, E]) -> None:
    exception, name = failure
    arguments = calls(rig)

    def fail(*_: object) -> int:
        raise exception

    inject(rig, fail)
    expected = -rig.t.arch.errno[name]
    assert {call: register(rig, call, args) for call, args in arguments.items()} == dict.fromkeys(arguments, expected)


def test_the_numberings_differ() -> None:
    tables = {name: errno_numbers(name)[E.EADDRINUSE] for name in NUMBERINGS}
    assert tables["generic"] == 98
    assert tables["mips"] == 125
