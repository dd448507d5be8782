"""POSIX message queues.

Rule: a queue is a machine-wide object by name; descriptions refer to it, and it lives until it is unlinked and the last
one is closed.
Sources: man 7 mq_overview, man 3 mq_open, mq_send, mq_receive, mq_notify; ipc/mqueue.c.
"""

from __future__ import annotations

import stat
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.files.description import (
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
    Description,
    ReadBuffers,
    VirtualStat,
    scatter,
)
from emulator.kernel.waits import WaitQueue

if TYPE_CHECKING:
    from emulator.kernel.host import Host
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.tasks import Task

HARD_MESSAGES, HARD_SIZE = 65536, 16 << 20
MAX_PRIORITY = 32768


@dataclass(frozen=True, slots=True)
class Registration:
    """What mq_notify(3) asked for: whose it is, what to do at a message, what when it is withdrawn."""

    owner: object
    tell: Callable[[], None] | None = None
    withdrawn: Callable[[], None] | None = None


@dataclass(slots=True, eq=False)
class Queue:
    """One queue: messages by priority, then age."""

    name: bytes
    mode: int
    uid: int
    gid: int
    max_messages: int
    max_size: int
    inode: int
    messages: list[tuple[int, int, bytes]] = field(default_factory=list)  # (-priority, order, text)
    order: count[int] = field(default_factory=count)
    filled: WaitQueue = field(default_factory=WaitQueue)
    emptied: WaitQueue = field(default_factory=WaitQueue)
    receivers: set[int] = field(default_factory=set)  # serials of tasks that wait for a message
    notify: Registration | None = None

    @property
    def size(self) -> int:
        """Bytes queued."""
        return sum(len(text) for _, _, text in self.messages)

    def put(self, text: bytes, priority: int) -> None:
        """Append; the first message of an empty queue that nobody waits for is announced."""
        announce = not self.messages and not self.receivers and self.notify is not None
        insort(self.messages, (-priority, next(self.order), text))
        self.filled.wake()
        if announce and self.notify is not None:
            registration, self.notify = self.notify, None
            if registration.tell is not None:
                registration.tell()

    def withdraw(self, owner: object) -> None:
        """The owner wants no notice any more, or closes the queue."""
        registration = self.notify
        if registration is not None and registration.owner is owner:
            self.notify = None
            if registration.withdrawn is not None:
                registration.withdrawn()

    def take(self) -> tuple[bytes, int]:
        """The oldest of the highest priority."""
        negative, _, text = self.messages.pop(0)
        self.emptied.wake()
        return text, -negative


class MessageDescription(Description):
    """An open queue."""

    __slots__ = ("queue",)

    kind = "mqueue"

    def __init__(self, host: Host, flags: int, queue: Queue) -> None:
        super().__init__(host, flags, b"/" + queue.name)
        self.queue = queue
        self.waiters = queue.filled

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        """The text of the queue's file (mq_overview(7))."""
        text = f"QSIZE:{self.queue.size:<10} NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n"
        return scatter(buffers, text.encode())

    def descriptor_closed(self, owner: object) -> None:
        """mq_close(3) ends the process' registration."""
        self.queue.withdraw(owner)

    def stat(self) -> VirtualStat:
        queue = self.queue
        return VirtualStat(stat.S_IFREG | queue.mode, queue.inode, 0x13, st_uid=queue.uid, st_gid=queue.gid, st_size=80)

    def poll(self, events: int) -> int:
        found = POLLIN | POLLRDNORM if self.queue.messages else 0
        if len(self.queue.messages) < self.queue.max_messages:
            found |= POLLOUT | POLLWRNORM
        return found & events


def queues_of(kernel: Kernel) -> dict[bytes, Queue]:
    """The machine's queues by name."""
    found: dict[bytes, Queue] = kernel.extensions.setdefault("mqueues", {})
    return found


def check_attributes(t: Task, messages: int, size: int) -> None:
    """mq_attr_ok."""
    if messages <= 0 or size <= 0:
        raise LinuxError(E.EINVAL)
    setting = t.kernel.sysctls.number
    most, largest = setting("fs/mqueue/msg_max"), setting("fs/mqueue/msgsize_max")
    if t.credentials.capable(24):
        most, largest = HARD_MESSAGES, HARD_SIZE
    if messages > most or size > largest:
        raise LinuxError(E.EINVAL)
    limit = t.group.rlimits[12][0]
    used = sum(q.max_messages * q.max_size for q in queues_of(t.kernel).values() if q.uid == t.credentials.ruid)
    if used + messages * (size + 96) > limit:
        raise LinuxError(E.EMFILE)
