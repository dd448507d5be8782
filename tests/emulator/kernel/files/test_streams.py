"""Host streams: what other programs share is never made non-blocking, and waiting is a blocked task."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.errors import LinuxError
from emulator.kernel import signals
from emulator.kernel.files.streams import HostStream
from emulator.kernel.host import Host
from emulator.kernel.vfs import Vfs
from emulator.kernel.waits import Block


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


def task() -> Any:
    return SimpleNamespace(call=SimpleNamespace(memo=None), pid=1, credentials=SimpleNamespace(ruid=0))


def stream(fd: int, flags: int) -> HostStream:
    return HostStream(Vfs(Host()).walker, fd, flags, inherited=True)


def test_an_empty_pipe_blocks_and_stays_blocking_for_others(pipe: tuple[int, int]) -> None:
    reader = stream(pipe[0], O.RDONLY)
    buffer = bytearray(4)
    with pytest.raises(Block) as caught:
        reader.read(task(), [buffer])
    assert [poll.fd for poll in caught.value.wait.host] == [pipe[0]]
    assert not fcntl.fcntl(pipe[0], fcntl.F_GETFL) & os.O_NONBLOCK
    os.write(pipe[1], b"abcdef")
    assert reader.read(task(), [buffer]) == 4
    assert buffer == b"abcd"


def test_a_full_pipe_remembers_how_far_it_came(pipe: tuple[int, int]) -> None:
    writer = stream(pipe[1], O.WRONLY)
    t = task()
    data = bytes(range(256)) * 1024
    with pytest.raises(Block) as caught:
        writer.write(t, [data])
    assert t.call.memo == caught.value.wait.partial > 0
    received = os.read(pipe[0], 1 << 20)
    while len(received) < len(data):
        try:
            assert writer.write(t, [data]) == len(data)
        except Block:
            assert t.call.memo > 0
        received += os.read(pipe[0], 1 << 20)
    assert received == data


def test_nonblocking_is_the_guests_own(pipe: tuple[int, int]) -> None:
    reader = stream(pipe[0], O.RDONLY | O.NONBLOCK)
    with pytest.raises(LinuxError) as caught:
        reader.read(task(), [bytearray(1)])
    assert caught.value.errno is E.EAGAIN


def test_a_pipe_without_reader_is_sigpipe(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(signals, "send_to_task", lambda t, info: sent.append(info.signo))
    writer = stream(pipe[1], O.WRONLY)
    os.close(pipe[0])
    with pytest.raises(LinuxError) as caught:
        writer.write(task(), [b"x"])
    assert caught.value.errno is E.EPIPE
    assert sent == [13]
