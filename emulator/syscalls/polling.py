"""Waiting for readiness: poll(2), select(2), epoll(7).

Rule: readiness is level and looked at afresh at every run of the handler; sockets are asked in one host call, the rest
one by one.  A temporary signal mask is swapped in once and comes back with the result, or with the signal frame.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from emulator.abi.errno import E
from emulator.abi.polling import (
    ALWAYS,
    EP_MAX_EVENTS,
    EPOLL_CLOEXEC,
    EPOLLEXCLUSIVE,
    FD_SETSIZE_MAX,
    SELECT_EXCEPT,
    SELECT_READ,
    SELECT_WRITE,
    EpollCtl,
    Poll,
)
from emulator.errors import LinuxError
from emulator.kernel import signals
from emulator.kernel.files.description import Description
from emulator.kernel.files.epoll import EpollDescription
from emulator.kernel.files.network import network_of
from emulator.kernel.files.socket import SocketDescription
from emulator.kernel.tasks import Task
from emulator.kernel.waits import Block, HostPoll, Wait, WaitQueue
from emulator.syscalls.registry import Fd, Int, Ptr, Size, UInt, syscall

_SMALLEST_TABLE = 64  # NR_OPEN_DEFAULT
_TIME_MAX_NS = (1 << 62) - 1


# -- deadlines and masks -------------------------------------------------------------------------------------------


STICKY_TIMEOUTS = 0x4000000  # personality(2)


def _deadline(t: Task, timeout_ns: int | None) -> int | None:
    """The call's deadline, fixed when it is first entered; None for ever."""
    if timeout_ns is None:
        return None
    call = t.call
    if call.deadline_ns is None:
        call.deadline_ns = t.kernel.clock.monotonic_ns() + timeout_ns
    return call.deadline_ns


def _milliseconds(timeout: int) -> int | None:
    return None if timeout < 0 else timeout * 1_000_000


def _timespec(t: Task, address: int) -> int | None:
    return t.memory.read_timespec(address) if address else None


def _write_left(t: Task, address: int, deadline_ns: int | None, *, microseconds: bool = False) -> None:
    """poll_select_finish(): what is left of the time; a failure to write it is not the call's."""
    if not address or deadline_ns is None:
        return
    if t.personality & STICKY_TIMEOUTS:
        return
    left = max(deadline_ns - t.kernel.clock.monotonic_ns(), 0)
    try:
        if microseconds:
            t.memory.write_timeval(address, left)
        else:
            t.memory.write_timespec(address, left)
    except LinuxError:
        pass


# -- asking --------------------------------------------------------------------------------------------------------


def _ask(t: Task, interests: Sequence[tuple[Description, int]]) -> list[int]:
    """revents of each (description, events); sockets in one host call."""
    answers: list[int] = []
    on_host: list[tuple[int, int]] = []
    places: list[int] = []
    for index, (description, events) in enumerate(interests):
        if type(description) is SocketDescription:
            on_host.append((description.fd, events))
            places.append(index)
            answers.append(0)
        else:
            answers.append(description.poll(events | ALWAYS) & (events | ALWAYS | Poll.NVAL))
    if on_host:
        host = network_of(t).host
        revents = [host.poll(*on_host[0])] if len(on_host) == 1 else host.poll_many(on_host)
        for place, answer in zip(places, revents, strict=True):
            answers[place] = answer
    return answers


def _wait_for(what: str, interests: Sequence[tuple[Description, int]], deadline_ns: int | None) -> Block:
    queues: list[WaitQueue] = []
    polls: list[HostPoll] = []
    for description, events in interests:
        if isinstance(description, EpollDescription):
            polls.extend(description.wait_polls())
            queues.append(description.waiters)
            continue
        host = description.host_poll()
        if host is not None:
            polls.append(HostPoll(host.fd, events & 0xFFFF))
        if type(description) is not SocketDescription:
            queues.append(description.waiters)
    return Block(Wait(what, tuple(queues), tuple(polls), deadline_ns, restart=E.ERESTARTNOHAND))


def _time_is_up(t: Task, deadline_ns: int | None) -> bool:
    return deadline_ns is not None and t.kernel.clock.monotonic_ns() >= deadline_ns


# -- poll ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _pollfds(order: str, count: int) -> struct.Struct:
    return struct.Struct(order + "iHH" * count)


def _poll(t: Task, array: int, count: int, timeout_ns: int | None) -> int:
    """do_sys_poll()."""
    if count > t.fds.limit:
        raise LinuxError(E.EINVAL)
    layout = _pollfds("<" if t.memory.byteorder == "little" else ">", count)
    flat = list(layout.unpack(t.memory.read(array, layout.size))) if count else []
    deadline_ns = _deadline(t, timeout_ns)
    interests: list[tuple[Description, int]] = []
    places: list[int] = []
    ready = 0
    for at in range(0, 3 * count, 3):
        flat[at + 2] = 0
        fd = flat[at]
        if fd < 0:
            continue
        try:
            description = t.fds.get(fd)
        except LinuxError:
            flat[at + 2] = Poll.NVAL
            ready += 1
            continue
        interests.append((description, flat[at + 1]))
        places.append(at + 2)
    for place, revents in zip(places, _ask(t, interests), strict=True):
        if revents:
            flat[place] = revents
            ready += 1
    if not ready and timeout_ns != 0 and not _time_is_up(t, deadline_ns):
        raise _wait_for("do_poll", interests, deadline_ns)
    if count:
        t.memory.write(array, layout.pack(*flat))
    return ready


@syscall("poll")
def poll(t: Task, array: Ptr, count: UInt, timeout: Int) -> int:
    """poll(2)."""
    return _poll(t, array, count, _milliseconds(timeout))


@syscall("ppoll")
def ppoll(t: Task, array: Ptr, count: UInt, timeout: Ptr, mask: Ptr, mask_size: Size) -> int:
    """ppoll(2)."""
    timeout_ns = _timespec(t, timeout)
    signals.swap_mask(t, mask, mask_size)
    try:
        ready = _poll(t, array, count, timeout_ns)
    except LinuxError:
        signals.restore_mask(t)
        raise
    signals.restore_mask(t)
    _write_left(t, timeout, t.call.deadline_ns)
    return ready


# -- select --------------------------------------------------------------------------------------------------------


def _read_set(t: Task, address: int, count: int) -> int:
    """An fd_set as one big integer, bit n for descriptor n."""
    if not address or not count:
        return 0
    word = t.memory.pointer_size
    size = -(-count // (8 * word)) * word
    data = t.memory.read(address, size)
    if t.memory.byteorder == "big":
        data = b"".join(data[at : at + word][::-1] for at in range(0, size, word))
    return int.from_bytes(data, "little") & ((1 << count) - 1)


def _write_set(t: Task, address: int, count: int, bits: int) -> None:
    if not address or not count:
        return
    word = t.memory.pointer_size
    size = -(-count // (8 * word)) * word
    data = bits.to_bytes(size, "little")
    if t.memory.byteorder == "big":
        data = b"".join(data[at : at + word][::-1] for at in range(0, size, word))
    t.memory.write(address, data)


def _capacity(t: Task) -> int:
    """How many descriptors the kernel's table has room for: select(2) ignores bits beyond."""
    highest = max((fd for fd, _ in t.fds), default=0)
    return _SMALLEST_TABLE if highest < _SMALLEST_TABLE else 128 << (highest // 128).bit_length()


def _select(t: Task, count: int, sets: tuple[int, int, int], timeout_ns: int | None) -> int:
    """core_sys_select()."""
    if count < 0:
        raise LinuxError(E.EINVAL)
    if count > _SMALLEST_TABLE:
        count = min(count, _capacity(t), FD_SETSIZE_MAX)
    wanted = [_read_set(t, address, count) for address in sets]
    deadline_ns = _deadline(t, timeout_ns)
    interests: list[tuple[Description, int]] = []
    fds: list[int] = []
    everything = wanted[0] | wanted[1] | wanted[2]
    while everything:
        lowest = everything & -everything
        everything ^= lowest
        fd = lowest.bit_length() - 1
        events = 0
        if wanted[0] & lowest:
            events |= SELECT_READ
        if wanted[1] & lowest:
            events |= SELECT_WRITE
        if wanted[2] & lowest:
            events |= SELECT_EXCEPT
        interests.append((t.fds.get(fd), events))
        fds.append(fd)
    result = [0, 0, 0]
    ready = 0
    for fd, revents in zip(fds, _ask(t, interests), strict=True):
        for index, bits in enumerate((SELECT_READ, SELECT_WRITE, SELECT_EXCEPT)):
            if revents & bits and wanted[index] >> fd & 1:
                result[index] |= 1 << fd
                ready += 1
    if not ready and timeout_ns != 0 and not _time_is_up(t, deadline_ns):
        raise _wait_for("do_select", interests, deadline_ns)
    for address, bits in zip(sets, result, strict=True):
        _write_set(t, address, count, bits)
    return ready


@syscall("select", "_newselect")
def select(t: Task, count: Int, readable: Ptr, writable: Ptr, exceptional: Ptr, timeout: Ptr) -> int:
    """select(2): the timeout is left with what remains of it."""
    timeout_ns = None
    if timeout:
        seconds, microseconds = t.memory.read_struct(timeout, "ll")
        timeout_ns = min((seconds * 1_000_000 + microseconds) * 1000, _TIME_MAX_NS)
        if seconds < 0 or microseconds < 0:
            raise LinuxError(E.EINVAL)
    ready = _select(t, count, (readable, writable, exceptional), timeout_ns)
    _write_left(t, timeout, t.call.deadline_ns, microseconds=True)
    return ready


@syscall("pselect6")
def pselect6(t: Task, count: Int, readable: Ptr, writable: Ptr, exceptional: Ptr, timeout: Ptr, mask: Ptr) -> int:
    """pselect(2); the sixth argument points to the mask's address and size."""
    mask_address, mask_size = t.memory.read_struct(mask, "PL") if mask else (0, 0)
    timeout_ns = _timespec(t, timeout)
    signals.swap_mask(t, mask_address, mask_size)
    try:
        ready = _select(t, count, (readable, writable, exceptional), timeout_ns)
    except LinuxError:
        signals.restore_mask(t)
        raise
    signals.restore_mask(t)
    _write_left(t, timeout, t.call.deadline_ns)
    return ready


# -- epoll ---------------------------------------------------------------------------------------------------------


@syscall("epoll_create1")
def epoll_create1(t: Task, flags: Int) -> int:
    """epoll_create1(2)."""
    if flags & ~EPOLL_CLOEXEC:
        raise LinuxError(E.EINVAL)
    description = EpollDescription(t.kernel.host, network_of(t).host)
    return t.fds.allocate(description, cloexec=bool(flags & EPOLL_CLOEXEC))


@syscall("epoll_create")
def epoll_create(t: Task, size: Int) -> int:
    """epoll_create(2)."""
    if size <= 0:
        raise LinuxError(E.EINVAL)
    return epoll_create1(t, 0)


@syscall("epoll_ctl")
def epoll_ctl(t: Task, epoll_fd: Fd, operation: Int, fd: Fd, event: Ptr) -> int:
    """epoll_ctl(2): EFAULT comes before EBADF here."""
    events = data = 0
    if operation != EpollCtl.DEL:
        layout = _events_layout(t.arch.abi.epoll_event, 1)
        events, data = layout.unpack(t.memory.read(event, layout.size))
    epoll = t.fds.get(epoll_fd)
    target = t.fds.get(fd)
    if not target.pollable:
        raise LinuxError(E.EPERM)
    if epoll is target or not isinstance(epoll, EpollDescription):
        raise LinuxError(E.EINVAL)
    if operation == EpollCtl.ADD:
        epoll.add(fd, target, events, data)
    elif operation == EpollCtl.MOD:
        if events & EPOLLEXCLUSIVE:
            raise LinuxError(E.EINVAL)
        epoll.modify(fd, target, events, data)
    elif operation == EpollCtl.DEL:
        epoll.remove(fd, target)
    else:
        raise LinuxError(E.EINVAL)
    return 0


@lru_cache(maxsize=256)
def _events_layout(codes: str, count: int) -> struct.Struct:
    """`count` of struct epoll_event; `codes` begins with the byte order."""
    return struct.Struct(codes[0] + codes[1:] * count)


def _epoll_wait(t: Task, epoll_fd: int, events: int, limit: int, timeout_ns: int | None) -> int:
    """do_epoll_wait(); it never is restarted after a signal."""
    epoll = t.fds.get(epoll_fd)
    if not 0 < limit <= EP_MAX_EVENTS:
        raise LinuxError(E.EINVAL)
    if not isinstance(epoll, EpollDescription):
        raise LinuxError(E.EINVAL)
    found = epoll.collect(limit)
    if found:
        layout = _events_layout(t.arch.abi.epoll_event, len(found))
        t.memory.write(events, layout.pack(*(word for pair in found for word in pair)))
        return len(found)
    if timeout_ns == 0:
        return 0
    deadline_ns = _deadline(t, timeout_ns)
    if _time_is_up(t, deadline_ns):
        return 0
    raise Block(Wait("ep_poll", (epoll.waiters,), epoll.wait_polls(), deadline_ns, restart=E.EINTR))


@syscall("epoll_wait")
def epoll_wait(t: Task, epoll_fd: Fd, events: Ptr, limit: Int, timeout: Int) -> int:
    """epoll_wait(2)."""
    return _epoll_wait(t, epoll_fd, events, limit, _milliseconds(timeout))


def _masked_epoll_wait(
    t: Task, epoll_fd: int, events: int, limit: int, timeout_ns: int | None, mask: int, mask_size: int
) -> int:
    signals.swap_mask(t, mask, mask_size)
    try:
        count = _epoll_wait(t, epoll_fd, events, limit, timeout_ns)
    except LinuxError:
        signals.restore_mask(t)
        raise
    signals.restore_mask(t)
    return count


@syscall("epoll_pwait")
def epoll_pwait(t: Task, epoll_fd: Fd, events: Ptr, limit: Int, timeout: Int, mask: Ptr, mask_size: Size) -> int:
    """epoll_pwait(2)."""
    return _masked_epoll_wait(t, epoll_fd, events, limit, _milliseconds(timeout), mask, mask_size)


@syscall("epoll_pwait2")
def epoll_pwait2(t: Task, epoll_fd: Fd, events: Ptr, limit: Int, timeout: Ptr, mask: Ptr, mask_size: Size) -> int:
    """epoll_pwait2(2): the timeout is a timespec."""
    return _masked_epoll_wait(t, epoll_fd, events, limit, _timespec(t, timeout), mask, mask_size)
