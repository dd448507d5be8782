"""What the CPU's `serve` is told of the kernel, so that it can make plain system calls by itself.

Rule: `serve` (cpu/hooks/serve.c, futex.c) does what `machine` does for a call nobody watches, on these same objects;
they are never replaced by others while the machine lives.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.kernel.futex import Waiter
from emulator.kernel.scheduler import LONG_TURN_INSNS
from emulator.kernel.tasks import Call, CallPhase, Task, TaskState
from emulator.kernel.thread_group import ThreadGroup
from emulator.syscalls.futex import FOREVER
from emulator.syscalls.registry import Entry

if TYPE_CHECKING:
    from emulator.kernel.kernel import Kernel


def what_serve_needs(
    kernel: Kernel, entries: Mapping[int, Entry], errors: Mapping[E, int], cost_insns: int
) -> dict[str, object]:
    """The objects that `serve` works on; `errors` are result registers, `cost_insns` what a call takes of a turn."""
    arch = kernel.arch
    queue, host_waits = kernel.scheduler.queue, kernel.scheduler.host_waits
    same_order = arch.byteorder == sys.byteorder
    futex = next((number for number, name in arch.syscalls.items() if name == "futex"), -1)
    return {
        "entries": entries,
        "events": kernel.events,
        "queue": queue,
        "cost_insns": cost_insns,
        "long_turn_insns": LONG_TURN_INSNS,
        "scheduler": kernel.scheduler,
        "append": queue.append,
        "popleft": queue.popleft,
        "timers": kernel.clock.pending,
        "host_fds": host_waits.by_fd,
        "host_watchers": host_waits.watchers,
        "load": kernel.load,
        "futexes": kernel.futexes.queues,
        "futex": futex if same_order else -1,
        "asleep": FOREVER,
        "EAGAIN": errors[E.EAGAIN],
        "ERESTARTSYS": errors[E.ERESTARTSYS],
        "RUNNABLE": TaskState.RUNNABLE,
        "BLOCKED": TaskState.BLOCKED,
        "USER_MODE": CallPhase.NONE,
        "IN_CALL": CallPhase.RUNNING,
        **{kind.__name__: kind for kind in (Task, Call, ThreadGroup, Waiter)},
    }
