"""Waiting for host descriptors: who is woken, what is forgotten, numbers that come back as another file."""

from __future__ import annotations

import os
import select
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from emulator.kernel.host_waits import HostWaits
from emulator.kernel.waits import HostPoll

IN, OUT = 1, 4


def task(serial: int) -> Any:
    return cast(Any, SimpleNamespace(uid=SimpleNamespace(serial=serial)))


@pytest.fixture
def pipe() -> Any:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    for fd in (read_end, write_end):
        try:
            os.close(fd)
        except OSError:
            continue


def test_only_those_are_woken_whose_events_came(pipe: tuple[int, int]) -> None:
    waits, (read_end, write_end) = HostWaits(), pipe
    reader, writer, other = task(1), task(2), task(3)
    waits.add(reader, (HostPoll(read_end, IN),))
    assert waits.ready() == []
    waits.add(writer, (HostPoll(write_end, OUT),))
    waits.add(other, (HostPoll(read_end, IN), HostPoll(write_end, OUT)))
    assert set(map(id, waits.ready())) == {id(writer), id(other)}
    os.write(write_end, b"x")
    assert [id(each) for each in waits.ready()] == [id(reader), id(other)]


def test_an_answer_is_given_once_until_the_task_waits_again(pipe: tuple[int, int]) -> None:
    waits, (read_end, write_end) = HostWaits(), pipe
    reader = task(1)
    os.write(write_end, b"x")
    polls = (HostPoll(read_end, IN),)
    waits.add(reader, polls)
    assert waits.ready() == [reader]
    waits.remove(reader, polls)
    assert not waits
    assert waits.ready() == []
    waits.add(reader, polls)
    assert waits.ready() == [reader]


def test_a_wait_that_is_over_wakes_nobody(pipe: tuple[int, int]) -> None:
    waits, (read_end, write_end) = HostWaits(), pipe
    polls = (HostPoll(read_end, IN),)
    waits.add(task(1), polls)
    waits.remove(task(1), polls)
    os.write(write_end, b"x")
    assert waits.ready() == []


def test_a_number_used_again_is_watched_again(pipe: tuple[int, int]) -> None:
    waits, (read_end, _) = HostWaits(), pipe
    polls = (HostPoll(read_end, IN),)
    waits.add(task(1), polls)
    waits.remove(task(1), polls)
    other_read, other_write = os.pipe()
    os.dup2(other_read, read_end)
    late = task(2)
    waits.add(late, polls)
    assert waits.ready() == []
    os.write(other_write, b"x")
    assert waits.ready() == [late]
    for fd in (other_read, other_write):
        os.close(fd)


def test_what_never_makes_wait_is_ready(tmp_path: Path) -> None:
    waits, waiting = HostWaits(), task(1)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    waits.add(waiting, (HostPoll(fd, IN),))
    assert waits.ready() == [waiting]
    os.close(fd)


def test_the_set_itself_can_be_polled(pipe: tuple[int, int]) -> None:
    waits, (read_end, write_end) = HostWaits(), pipe
    assert list(waits.interest) == []
    waits.add(task(1), (HostPoll(read_end, IN),))
    poller = select.poll()
    for fd, events in waits.interest:
        poller.register(fd, events)
    assert not poller.poll(0)
    os.write(write_end, b"x")
    assert poller.poll(0)
    assert waits.ready()
    assert not poller.poll(0)
