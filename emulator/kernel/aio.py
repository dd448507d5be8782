"""Contexts of io_setup(2): what has been submitted, and what has come of it.

Rule: reading, writing and syncing are done when they are submitted, so only polls are ever under way.  A context
belongs to an address space and is known by the address of a page mapped for it; the page is not the kernel's event
ring (its magic number is absent), so that C libraries ask by system call.
Source: man 2 io_setup, io_submit, io_getevents; fs/aio.c.
"""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE
from emulator.abi.mman import Map
from emulator.abi.polling import Poll
from emulator.errors import LinuxError
from emulator.kernel.waits import HostPoll, WaitQueue

if TYPE_CHECKING:
    from emulator.kernel.address_space import AddressSpace
    from emulator.kernel.files.description import Description
    from emulator.kernel.files.eventfd import EventfdDescription
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.tasks import Task

EVENT_SIZE = RING_HEADER = 32
MAX_EVENTS = 0x10000000 // EVENT_SIZE


@dataclass(frozen=True, slots=True)
class Completion:
    """struct io_event, but for res2, which is 0."""

    data: int
    request: int  # the guest's address of the iocb
    result: int


@dataclass(eq=False, slots=True)
class PollRequest:
    """An IOCB_CMD_POLL under way; retains the description."""

    data: int
    request: int
    description: Description
    events: int
    notify: EventfdDescription | None


@dataclass(eq=False, slots=True)
class Context:
    """One ring."""

    asked: int  # what io_setup was asked for, counted in aio-max-nr
    capacity: int
    done: deque[Completion] = field(default_factory=deque)
    polls: list[PollRequest] = field(default_factory=list)
    changed: WaitQueue = field(default_factory=WaitQueue)

    @property
    def free(self) -> int:
        """How many more requests fit."""
        return self.capacity - len(self.done) - len(self.polls)

    def complete(self, completion: Completion, notify: EventfdDescription | None) -> None:
        """A request has its result."""
        self.done.append(completion)
        if notify is not None:
            notify.announce()
        self.changed.wake()

    def check_polls(self) -> None:
        """Complete the polls whose descriptions have become ready: the result is what they were woken with."""
        for poll in list(self.polls):
            ready = poll.description.poll(poll.events)
            if ready:
                ready |= (Poll.RDNORM if ready & Poll.IN else 0) | (Poll.WRNORM if ready & Poll.OUT else 0)
                self.finish(poll, ready)

    def finish(self, poll: PollRequest, result: int) -> None:
        """A poll is over."""
        self.polls.remove(poll)
        self.complete(Completion(poll.data, poll.request, result), poll.notify)
        poll.description.release()

    def sources(self) -> tuple[tuple[WaitQueue, ...], tuple[HostPoll, ...]]:
        """What to wait on for the next completion."""
        queues, hosts = [self.changed], []
        for poll in self.polls:
            queues.append(poll.description.waiters)
            host = poll.description.host_poll()
            if host is not None:
                hosts.append(HostPoll(host.fd, poll.events))
        return tuple(queues), tuple(hosts)

    def close(self) -> None:
        """Nobody will ask for the rest."""
        for poll in self.polls:
            poll.description.release()
        self.polls.clear()
        self.changed.wake()


class Contexts:
    """All contexts of the machine, by address space and address."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[AddressSpace, dict[int, Context]] = weakref.WeakKeyDictionary()

    def total(self) -> int:
        """/proc/sys/fs/aio-nr."""
        return sum(context.asked for contexts in self._of.values() for context in contexts.values())

    def setup(self, t: Task, count: int) -> int:
        """io_setup: the new context's address."""
        if count > MAX_EVENTS:
            raise LinuxError(E.EINVAL)
        if count > t.kernel.sysctls.number("fs/aio-max-nr") - self.total():
            raise LinuxError(E.EAGAIN)
        size = RING_HEADER + EVENT_SIZE * (max(count, 4) * 2 + 2)
        size = -(-size // PAGE_SIZE) * PAGE_SIZE
        address = t.space.mmap(0, size, 3, Map.PRIVATE | Map.ANONYMOUS)
        capacity = (size - RING_HEADER) // EVENT_SIZE - 1
        self._of.setdefault(t.space, {})[address] = Context(count, capacity)
        return address

    def get(self, t: Task, address: int) -> Context:
        """EINVAL for what is no context of this process."""
        context = self._of.get(t.space, {}).get(address)
        if context is None:
            raise LinuxError(E.EINVAL)
        return context

    def destroy(self, t: Task, address: int) -> None:
        """io_destroy."""
        context = self.get(t, address)
        del self._of[t.space][address]
        size = -(-(RING_HEADER + EVENT_SIZE * (context.capacity + 1)) // PAGE_SIZE) * PAGE_SIZE
        t.space.munmap(address, size)
        context.close()


def contexts_of(kernel: Kernel) -> Contexts:
    """The machine's."""
    found = kernel.extensions.get("aio")
    if not isinstance(found, Contexts):
        found = kernel.extensions["aio"] = Contexts()
    return found
