"""Asynchronous I/O of the kernel's own: io_setup(2) and its family.

Sources: man 2 io_setup, io_submit, io_getevents, io_cancel, io_destroy; <linux/aio_abi.h>, fs/aio.c (order of checks).
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from enum import IntEnum

from emulator.abi.errno import E
from emulator.abi.memory import Access
from emulator.abi.polling import Poll
from emulator.errors import LinuxError
from emulator.kernel import signals
from emulator.kernel.aio import Completion, Context, PollRequest, contexts_of
from emulator.kernel.files.description import Description
from emulator.kernel.files.eventfd import EventfdDescription
from emulator.kernel.tasks import Task
from emulator.kernel.waits import Block, Wait
from emulator.syscalls.files import read_now, write_now
from emulator.syscalls.io import MAX_RW_COUNT, RWF_KNOWN, vector_buffers
from emulator.syscalls.registry import Long, Ptr, UInt, syscall


class Command(IntEnum):
    """IOCB_CMD_*."""

    PREAD = 0
    PWRITE = 1
    FSYNC = 2
    FDSYNC = 3
    POLL = 5
    PREADV = 7
    PWRITEV = 8


FLAG_RESFD = 1
RWF_NOWAIT = 8


@dataclass(frozen=True, slots=True)
class Iocb:
    """struct iocb; `address` is the guest's."""

    address: int
    data: int
    rw_flags: int
    opcode: int
    priority: int
    fd: int
    buffer: int
    nbytes: int
    offset: int
    flags: int
    eventfd: int

    @classmethod
    def read(cls, t: Task, address: int) -> Iocb:
        """EFAULT; EINVAL for what is reserved or does not fit."""
        data, first, second, opcode, priority, fd, buffer, nbytes, offset, reserved, flags, eventfd = (
            t.memory.read_struct(address, "QIIHhiQQqQIi")
        )
        if reserved or nbytes >= 1 << (t.arch.bits - 1) or buffer >> t.arch.bits:
            raise LinuxError(E.EINVAL)
        rw_flags = second if t.memory.byteorder == "little" else first
        return cls(address, data, rw_flags, opcode, priority, fd, buffer, nbytes, offset, flags, eventfd)


@syscall("io_setup")
def io_setup(t: Task, nr_events: UInt, ctxp: Ptr) -> None:
    """io_setup(2)."""
    if t.memory.read_ptr(ctxp) or not nr_events:
        raise LinuxError(E.EINVAL)
    contexts = contexts_of(t.kernel)
    address = contexts.setup(t, nr_events)
    try:
        t.memory.write_ptr(ctxp, address)
    except LinuxError:
        contexts.destroy(t, address)
        raise


@syscall("io_destroy")
def io_destroy(t: Task, ctx: Ptr) -> None:
    """io_destroy(2)."""
    contexts_of(t.kernel).destroy(t, ctx)


@syscall("io_submit")
def io_submit(t: Task, ctx: Ptr, nr: Long, iocbpp: Ptr) -> int:
    """io_submit(2): how many were submitted; the failure of the first one is the call's."""
    context = contexts_of(t.kernel).get(t, ctx)
    if nr < 0:
        raise LinuxError(E.EINVAL)
    done = 0
    try:
        for index in range(min(nr, context.capacity)):
            _submit(t, context, t.memory.read_ptr(iocbpp + index * t.arch.pointer_size))
            done += 1
    except (LinuxError, Block):
        if not done:
            raise
    return done


def _submit(t: Task, context: Context, address: int) -> None:
    iocb = Iocb.read(t, address)
    if context.free <= 0:
        context.check_polls()
        raise LinuxError(E.EAGAIN)
    description = t.fds.get(iocb.fd)
    notify = None
    if iocb.flags & FLAG_RESFD:
        counter = t.fds.get(iocb.eventfd)
        if not isinstance(counter, EventfdDescription):
            raise LinuxError(E.EINVAL)
        notify = counter
    t.memory.write_u32(address + 8, 0)  # KIOCB_KEY
    if iocb.opcode == Command.POLL:
        _submit_poll(context, iocb, description, notify)
        return
    try:
        result = _perform(t, iocb, description)
    except _Result as failed:
        result = -t.arch.errno[failed.errno]
    context.complete(Completion(iocb.data, address, result), notify)


class _Result(Exception):  # noqa: N818 - the request's outcome, not the call's
    """The request failed, not its submission."""

    def __init__(self, errno: E) -> None:
        super().__init__(errno)
        self.errno = errno


def _perform(t: Task, iocb: Iocb, description: Description) -> int:
    match iocb.opcode:
        case Command.PREAD | Command.PREADV:
            return _transfer(t, iocb, description, reading=True)
        case Command.PWRITE | Command.PWRITEV:
            return _transfer(t, iocb, description, reading=False)
        case Command.FSYNC | Command.FDSYNC:
            if iocb.buffer or iocb.offset or iocb.nbytes or iocb.rw_flags:
                raise LinuxError(E.EINVAL)
            description.sync(iocb.opcode == Command.FDSYNC)
            return 0
        case _:
            raise LinuxError(E.EINVAL)


def _transfer(t: Task, iocb: Iocb, description: Description, *, reading: bool) -> int:
    if not (description.readable if reading else description.writable):
        raise LinuxError(E.EBADF)
    if iocb.rw_flags & ~RWF_KNOWN:
        raise LinuxError(E.EOPNOTSUPP)
    if stat.S_ISDIR(description.stat().st_mode):
        raise LinuxError(E.EINVAL)
    access = Access.WRITE if reading else Access.READ
    if iocb.opcode in (Command.PREADV, Command.PWRITEV):
        buffers = vector_buffers(t, iocb.buffer, iocb.nbytes, access)
    else:
        if iocb.buffer + iocb.nbytes > t.arch.layout.task_size:
            raise LinuxError(E.EFAULT)
        try:
            buffers = t.memory.buffers(iocb.buffer, min(iocb.nbytes, MAX_RW_COUNT), access)
        except LinuxError as error:
            raise _Result(error.errno) from None
    if not description.seekable:
        return _stream(t, description, buffers, reading=reading, waiting=not iocb.rw_flags & RWF_NOWAIT)
    if iocb.offset < 0:
        raise LinuxError(E.EINVAL)
    try:
        if reading:
            return description.pread(t, buffers, iocb.offset, iocb.rw_flags)
        return description.pwrite(t, buffers, iocb.offset, iocb.rw_flags)
    except LinuxError as error:
        raise _Result(error.errno) from None


def _stream(t: Task, description: Description, buffers: list[memoryview], *, reading: bool, waiting: bool) -> int:
    """Pipes and sockets: submission waits for them, as Linux's does."""
    try:
        if not reading:
            return write_now(t, description, b"".join(buffers))
        data = read_now(t, description, sum(map(len, buffers)))
    except LinuxError as error:
        if error.errno is E.EAGAIN and waiting and not description.nonblocking:
            raise description.block("io_submit", Poll.IN if reading else Poll.OUT) from None
        raise _Result(error.errno) from None
    at = 0
    for buffer in buffers:
        part = data[at : at + len(buffer)]
        buffer[: len(part)] = part
        at += len(part)
    return len(data)


def _submit_poll(context: Context, iocb: Iocb, description: Description, notify: EventfdDescription | None) -> None:
    if iocb.buffer >> 16 or iocb.offset or iocb.nbytes or iocb.rw_flags:
        raise LinuxError(E.EINVAL)
    events = iocb.buffer | Poll.ERR | Poll.HUP
    ready = description.poll(events)
    if ready:
        context.complete(Completion(iocb.data, iocb.address, ready), notify)
        return
    description.retain()
    context.polls.append(PollRequest(iocb.data, iocb.address, description, events, notify))


@syscall("io_getevents", "io_getevents_time64")
def io_getevents(t: Task, ctx: Ptr, min_nr: Long, nr: Long, events: Ptr, timeout: Ptr) -> int:
    """io_getevents(2)."""
    wait_ns = _duration(t, timeout)
    return _read_events(t, ctx, min_nr, nr, events, wait_ns)


@syscall("io_pgetevents", "io_pgetevents_time64")
def io_pgetevents(t: Task, ctx: Ptr, min_nr: Long, nr: Long, events: Ptr, timeout: Ptr, usig: Ptr) -> int:
    """io_pgetevents(2): with a signal mask for the time it waits."""
    wait_ns = _duration(t, timeout)
    mask, size = t.memory.read_struct(usig, "PL") if usig else (0, 0)
    signals.swap_mask(t, mask, size)
    try:
        found = _read_events(t, ctx, min_nr, nr, events, wait_ns)
    except LinuxError:
        signals.restore_mask(t)
        raise
    signals.restore_mask(t)
    return found


def _duration(t: Task, address: int) -> int | None:
    """Taken as it is: neither a negative time nor too many nanoseconds are an error."""
    if not address:
        return None
    seconds, nanoseconds = t.memory.read_struct(address, "ll")
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _read_events(t: Task, ctx: int, min_nr: int, nr: int, events: int, wait_ns: int | None) -> int:
    context = contexts_of(t.kernel).get(t, ctx)
    if not 0 <= min_nr <= nr:
        raise LinuxError(E.EINVAL)
    if wait_ns is not None and t.call.deadline_ns is None:
        t.call.deadline_ns = t.kernel.clock.monotonic_ns() + wait_ns
    context.check_polls()
    deadline = t.call.deadline_ns
    expired = deadline is not None and t.kernel.clock.monotonic_ns() >= deadline
    if len(context.done) < min_nr and not expired:
        queues, hosts = context.sources()
        raise Block(Wait("read_events", queues, hosts, deadline, restart=E.EINTR))
    found = 0
    while found < nr and context.done:
        event = context.done[0]
        try:
            where = events + found * 32
            t.memory.write_struct(where, "QQqq", event.data, event.request, event.result, 0)
        except LinuxError:
            if not found:
                raise
            break
        context.done.popleft()
        found += 1
    return found


@syscall("io_cancel")
def io_cancel(t: Task, ctx: Ptr, iocb: Ptr, result: Ptr) -> None:
    """io_cancel(2): a poll under way ends, which its event tells (EINPROGRESS); nothing else is ever under way."""
    key = t.memory.read_u32(iocb + 8)
    if key:
        raise LinuxError(E.EINVAL)
    context = contexts_of(t.kernel).get(t, ctx)
    for poll in context.polls:
        if poll.request == iocb:
            context.finish(poll, 0)
            raise LinuxError(E.EINPROGRESS)
    raise LinuxError(E.EINVAL)
