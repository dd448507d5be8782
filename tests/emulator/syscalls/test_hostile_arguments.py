"""Random and hostile arguments to every call of these families: a result, an errno or a wait, nothing else."""

from __future__ import annotations

import contextlib
import random
import struct

import pytest

from emulator.errors import LinuxError
from emulator.kernel.tasks import Control
from emulator.kernel.waits import Block
from emulator.syscalls import events, polling, sockets
from tests.emulator.syscalls.rig import BASE, Rig, entry_of, make_rig

CALLS = sorted(
    name
    for module in (sockets, polling, events)
    for name, value in vars(module).items()
    if callable(value) and getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
    if name not in ("socket_of", "read_sockaddr", "write_sockaddr", "header_size", "send_one", "receive_one")
    if name != "MessageHeader"
)


def prepare(rig: Rig) -> list[int]:
    """Descriptors of every kind."""
    where = rig.room(8)
    fds: list[int] = []
    for kind in (1, 2, 5):
        rig.call("socketpair", 1, kind | 0o4000, 0, where)
        fds.extend(rig.ints(where, 2))
    for family, kind in ((2, 1), (2, 2), (10, 1), (16, 3)):
        fds.append(rig.call("socket", family, kind | 0o4000, 0))
    fds.append(rig.call("epoll_create1", 0))
    fds.append(rig.call("epoll_create1", 0))
    fds.append(rig.call("eventfd2", 1, 0o4000))
    fds.append(rig.call("timerfd_create", 1, 0o4000))
    fds.append(rig.call("signalfd4", -1, rig.put(struct.pack("=Q", 1 << 9)), 8, 0o4000))
    fds.append(rig.call("inotify_init1", 0o4000))
    fds.append(rig.call("pidfd_open", rig.t.group.tgid, 0))
    return fds


def hostile(draw: random.Random, fds: list[int]) -> int:
    """One argument."""
    match draw.randrange(8):
        case 0 | 1:
            return draw.choice(fds)
        case 2:
            return draw.choice((0, 1, 2, 3, 4, 8, 12, 16, 24, 56, 64, 128, 1024))
        case 3 | 4:
            return BASE + draw.randrange(0x400) * 8
        case 5:
            return BASE + 0xFFF0 + draw.randrange(0x20)
        case 6:
            return (1 << draw.randrange(64)) - draw.randrange(3) & 0xFFFFFFFFFFFFFFFF
        case _:
            return draw.getrandbits(64)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_but_results_errnos_and_waits(seed: int) -> None:
    draw = random.Random(seed)
    rig = make_rig(net="loopback")
    fds = prepare(rig)
    t = rig.t
    for _ in range(4000):
        name = draw.choice(CALLS)
        if name in ("inotify_add_watch", "bind"):  # they would litter the file system
            continue
        args = tuple(hostile(draw, fds) for _ in range(6))
        if draw.random() < 0.1:
            t.memory.write(BASE, draw.randbytes(64) + struct.pack("=8Q", *(hostile(draw, fds) for _ in range(8))))
        with contextlib.suppress(LinuxError, Block, Control):
            entry_of(name, 64)(t, args)
        t.call.finish()
        t.signals.saved_mask = None
        for fd in [number for number, _ in t.fds if number > max(fds)]:
            t.fds.close(fd)
