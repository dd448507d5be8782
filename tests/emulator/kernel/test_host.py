"""The door to the host: every failure leaves by name."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.host import Host
from emulator.kernel.host_errno import by_number, linux_error
from emulator.kernel.host_handles import HostFd


def test_every_host_errno_has_its_name() -> None:
    for number, name in errno.errorcode.items():
        expected = {"EDEADLOCK": "EDEADLK", "ENOTSUP": "EOPNOTSUPP"}.get(name, name)
        assert by_number(number).name == expected


def test_an_errno_linux_does_not_have_is_eio() -> None:
    assert by_number(9999) is E.EIO


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), E.ENOSPC),
        (OSError("AF_UNIX path too long"), E.EINVAL),
        (TimeoutError("timed out"), E.ETIMEDOUT),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), E.ETIMEDOUT),
        (BlockingIOError(errno.EAGAIN, "again"), E.EAGAIN),
        (socket.gaierror(-2, "Name or service not known"), E.EADDRNOTAVAIL),
        (OverflowError("getsockaddrarg: port must be 0-65535."), E.EINVAL),
        (UnicodeEncodeError("ascii", "\xff", 0, 1, "bad"), E.EILSEQ),
        (ValueError("embedded null byte"), E.EINVAL),
        (ValueError("I/O operation on closed file"), E.EBADF),
        (ValueError("file descriptor cannot be a negative integer (-1)"), E.EBADF),
        (MemoryError(), E.ENOMEM),
        (LinuxError(E.ENOTTY), E.ENOTTY),
        (RuntimeError("unknown"), E.EIO),
    ],
)
def test_failures_without_an_errno_are_defined(error: Exception, expected: E) -> None:
    assert linux_error(error).errno is expected


def test_calls_that_libc_serves_fail_by_name(tmp_path: Path) -> None:
    host = Host()
    base = os.fsencode(tmp_path)
    for call in (
        lambda: host.rename(base + b"/a", base + b"/b", None, None),
        lambda: host.rename(base + b"/a", base + b"/b", None, None, 1),
        lambda: host.statx(None, base + b"/a", 0, 0x7FF),
        lambda: host.access(base + b"/a", 4, 0),
        lambda: host.link(base + b"/a", base + b"/b", None, None),
        lambda: host.utimens(None, base + b"/a", None, 0),
        lambda: host.statfs(base + b"/a"),
        lambda: host.open(base + b"/a", 0),
        lambda: host.getxattr(base + b"/a", b"user.x"),
    ):
        with pytest.raises(LinuxError) as caught:
            call()
        assert caught.value.errno is E.ENOENT
    with pytest.raises(LinuxError) as caught:
        host.stat(b"a\0b")
    assert caught.value.errno is E.EINVAL
    with pytest.raises(LinuxError) as caught:
        host.getdents64(-1, 100)
    assert caught.value.errno is E.EBADF


def test_a_dropped_descriptor_is_closed() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    holder = HostFd(fd)
    del holder
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_poll_many_takes_a_closed_descriptor() -> None:
    host = Host()
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    assert host.poll_many([(fd, 1)], 0) == [(fd, 32)]
    assert host.poll_many([(-1, 1)], 0) == []
