"""poll, select and epoll over mixed descriptions, without a CPU."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial

import pytest

from emulator.abi.errno import E
from emulator.kernel.waits import Block
from tests.emulator.syscalls.rig import BAD, Rig, make_rig
from tests.emulator.syscalls.test_sockets import pair

ADD, DEL, MOD = 1, 2, 3
IN, OUT, HUP, RDHUP, NVAL = 1, 4, 0x10, 0x2000, 0x20
ET, ONESHOT, EXCLUSIVE = 1 << 31, 1 << 30, 1 << 28


@pytest.fixture
def rig() -> Rig:
    return make_rig()


def ctl(rig: Rig, epoll: int, operation: int, fd: int, events: int = IN, data: int = 0) -> E | None:
    return rig.errno("epoll_ctl", epoll, operation, fd, rig.put(struct.pack("<IQ", events, data or fd)))


def wait(rig: Rig, epoll: int, limit: int = 8) -> list[tuple[int, int]]:
    out = rig.room(12 * limit)
    count = rig.call("epoll_wait", epoll, out, limit, 0)
    return [struct.unpack_from("<IQ", rig.t.memory.read(out, 12 * count), 12 * index) for index in range(count)]


def signal_eventfd(rig: Rig, fd: int, value: int = 1) -> None:
    rig.t.fds.get(fd).write(rig.t, [struct.pack("=Q", value)])


def drain_eventfd(rig: Rig, fd: int) -> int:
    out = bytearray(8)
    rig.t.fds.get(fd).read(rig.t, [out])
    return int.from_bytes(out, "little")


def send(rig: Rig, fd: int, data: bytes = b"x") -> None:
    rig.call("sendto", fd, rig.put(data), len(data), 0, 0, 0)


def test_errors(rig: Rig) -> None:
    epoll, event = rig.call("epoll_create1", 0), rig.call("eventfd2", 0, 0)
    other = rig.call("epoll_create1", 0)
    assert ctl(rig, epoll, MOD, event) is E.ENOENT
    assert ctl(rig, epoll, DEL, event) is E.ENOENT
    assert ctl(rig, epoll, ADD, event) is None
    assert ctl(rig, epoll, ADD, event) is E.EEXIST
    assert ctl(rig, epoll, ADD, epoll) is E.EINVAL
    assert ctl(rig, epoll, ADD, 99) is E.EBADF
    assert ctl(rig, event, ADD, epoll) is E.EINVAL
    assert ctl(rig, epoll, 9, event) is E.EINVAL
    assert rig.errno("epoll_ctl", 99, ADD, 99, BAD) is E.EFAULT
    assert ctl(rig, epoll, ADD, other) is None
    assert ctl(rig, other, ADD, epoll) is E.ELOOP
    assert ctl(rig, epoll, ADD, other, IN | EXCLUSIVE) is E.EINVAL
    assert rig.errno("epoll_wait", epoll, rig.room(12), 0, 0) is E.EINVAL
    assert rig.errno("epoll_wait", event, rig.room(12), 1, 0) is E.EINVAL
    assert rig.errno("epoll_create", 0) is E.EINVAL


@pytest.mark.parametrize("backing", ["host", "emulator"])
def test_level_edge_oneshot(rig: Rig, backing: str) -> None:
    epoll = rig.call("epoll_create1", 0)
    if backing == "host":
        fd, far = pair(rig)
        rouse: Callable[[], None] = partial(send, rig, far)
    else:
        fd = rig.call("eventfd2", 0, 0)
        rouse = partial(signal_eventfd, rig, fd)
    ctl(rig, epoll, ADD, fd, IN)
    assert wait(rig, epoll) == []
    rouse()
    assert wait(rig, epoll) == wait(rig, epoll) == [(IN, fd)]
    ctl(rig, epoll, MOD, fd, IN | ET)
    assert wait(rig, epoll) == [(IN, fd)]
    assert wait(rig, epoll) == []
    rouse()
    assert wait(rig, epoll) == [(IN, fd)]
    ctl(rig, epoll, MOD, fd, IN | ONESHOT)
    assert wait(rig, epoll) == [(IN, fd)]
    rouse()
    assert wait(rig, epoll) == []
    ctl(rig, epoll, MOD, fd, IN | ONESHOT, 77)
    assert wait(rig, epoll) == [(IN, 77)]
    assert ctl(rig, epoll, DEL, fd) is None
    assert wait(rig, epoll) == []


def test_nested_and_mixed(rig: Rig) -> None:
    outer, inner = rig.call("epoll_create1", 0), rig.call("epoll_create1", 0)
    event, (one, two) = rig.call("eventfd2", 0, 0), pair(rig)
    ctl(rig, inner, ADD, event)
    ctl(rig, inner, ADD, one)
    ctl(rig, outer, ADD, inner)
    assert wait(rig, outer) == []
    signal_eventfd(rig, event)
    assert wait(rig, outer) == [(IN, inner)]
    assert wait(rig, inner) == [(IN, event)]
    drain_eventfd(rig, event)
    assert wait(rig, outer) == []
    send(rig, two)
    assert wait(rig, outer) == [(IN, inner)]
    assert wait(rig, inner) == [(IN, one)]


def test_closing_drops_the_registration_only_with_the_last_reference(rig: Rig) -> None:
    epoll, (one, two) = rig.call("epoll_create1", 0), pair(rig)
    ctl(rig, epoll, ADD, one)
    send(rig, two)
    copy = rig.t.fds.dup(one)
    rig.t.fds.close(one)
    assert wait(rig, epoll) == [(IN, one)]
    assert ctl(rig, epoll, DEL, one) is E.EBADF
    rig.t.fds.close(copy)
    assert wait(rig, epoll) == []


def test_one_description_under_two_descriptors(rig: Rig) -> None:
    epoll, (one, two) = rig.call("epoll_create1", 0), pair(rig)
    copy = rig.t.fds.dup(one)
    assert ctl(rig, epoll, ADD, one) is None
    assert ctl(rig, epoll, ADD, copy) is None
    send(rig, two)
    assert sorted(wait(rig, epoll)) == sorted([(IN, one), (IN, copy)])


def test_many_ready_none_starves(rig: Rig) -> None:
    epoll = rig.call("epoll_create1", 0)
    events = [rig.call("eventfd2", 1, 0) for _ in range(3)]
    pairs = [pair(rig) for _ in range(3)]
    for event in events:
        ctl(rig, epoll, ADD, event)
    for one, two in pairs:
        ctl(rig, epoll, ADD, one)
        send(rig, two)
    seen = {data for _ in range(8) for _, data in wait(rig, epoll, 2)}
    assert seen == {*events, *(one for one, _ in pairs)}


def test_wait_blocks_on_the_set_and_wakes(rig: Rig) -> None:
    epoll, event = rig.call("epoll_create1", 0), rig.call("eventfd2", 0, 0)
    ctl(rig, epoll, ADD, event)
    with pytest.raises(Block) as blocked:
        rig.call("epoll_wait", epoll, rig.room(12), 1, -1)
    scheduler = rig.t.kernel.scheduler
    scheduler.block(rig.t, blocked.value.wait)
    signal_eventfd(rig, event)
    assert list(scheduler.queue) == [rig.t]


def test_poll_over_everything(rig: Rig) -> None:
    event, (one, two) = rig.call("eventfd2", 1, 0), pair(rig)
    rig.t.fds.close(two)
    array = rig.put(struct.pack("=" + "ihH" * 4, event, IN | OUT, 0, one, IN | RDHUP, 0, 99, IN, 0, -5, IN, 7))
    assert rig.call("poll", array, 4, 0) == 3
    found = struct.unpack("=" + "ihH" * 4, rig.t.memory.read(array, 32))[2::3]
    assert found == (IN | OUT, IN | HUP | RDHUP, NVAL, 0)
    assert rig.errno("poll", array, 100000, 0) is E.EINVAL
    assert rig.errno("poll", BAD, 1, 0) is E.EFAULT


def test_ppoll_restores_the_mask(rig: Rig) -> None:
    event = rig.call("eventfd2", 0, 0)
    array = rig.put(struct.pack("=ihH", event, IN, 0))
    rig.t.signals.set_mask(0x2)
    mask = rig.put(struct.pack("=Q", 0x10))
    assert rig.errno("ppoll", array, 1, 0, mask, 4) is E.EINVAL
    with pytest.raises(Block):
        rig.call("ppoll", array, 1, 0, mask, 8)
    assert rig.t.signals.mask == 0x10
    signal_eventfd(rig, event)
    assert rig.call("ppoll", array, 1, 0, mask, 8) == 1
    assert rig.t.signals.mask == 0x2


def test_select(rig: Rig) -> None:
    event, (one, two) = rig.call("eventfd2", 0, 0), pair(rig)
    send(rig, two)
    reads = rig.put(struct.pack("=Q", 1 << event | 1 << one))
    writes = rig.put(struct.pack("=Q", 1 << event | 1 << two))
    zero = rig.put(struct.pack("=qq", 0, 0))
    assert rig.call("select", 10, reads, writes, 0, zero) == 3
    assert rig.t.memory.read_u64(reads) == 1 << one
    assert rig.t.memory.read_u64(writes) == 1 << event | 1 << two
    bad = rig.put(struct.pack("=Q", 1 << 50))
    assert rig.errno("select", 60, bad, 0, 0, zero) is E.EBADF
    assert rig.errno("select", -1, 0, 0, 0, zero) is E.EINVAL


def test_eventfd(rig: Rig) -> None:
    fd = rig.call("eventfd2", 3, 1 | 0o4000)
    assert [drain_eventfd(rig, fd) for _ in range(3)] == [1, 1, 1]
    with pytest.raises(Exception, match="EAGAIN"):
        drain_eventfd(rig, fd)
    with pytest.raises(Exception, match="EINVAL"):
        signal_eventfd(rig, fd, (1 << 64) - 1)


def test_timerfd(rig: Rig) -> None:
    fd = rig.call("timerfd_create", 1, 0o4000)
    assert rig.call("timerfd_settime", fd, 1, rig.put(struct.pack("=qqqq", 0, 1000, 0, 1)), 0) == 0
    assert drain_eventfd(rig, fd) > 1
    assert rig.call("timerfd_settime", fd, 0, rig.put(struct.pack("=qqqq", 0, 0, 100, 0)), 0) == 0
    out = rig.room(32)
    rig.call("timerfd_gettime", fd, out)
    assert 90 < struct.unpack("=qqqq", rig.t.memory.read(out, 32))[2] <= 100
    assert rig.errno("timerfd_create", 5, 0) is E.EINVAL
    assert rig.errno("timerfd_settime", fd, 0, rig.put(struct.pack("=qqqq", 0, 0, 0, 10**9)), 0) is E.EINVAL


def test_a_closed_set_leaves_nothing_behind(rig: Rig) -> None:
    epoll, event, (one, _) = rig.call("epoll_create1", 0), rig.call("eventfd2", 0, 0), pair(rig)
    ctl(rig, epoll, ADD, event)
    ctl(rig, epoll, ADD, one)
    rig.t.fds.close(epoll)
    assert not rig.t.fds.get(event).on_release
    assert not rig.t.fds.get(one).on_release
    rig.t.fds.close(event)
