"""Who runs next: one CPU, a run queue in order of arrival, quanta in clock instructions.

Rule: a task is switched only at a clock limit or in a system call, and the order depends on nothing but the queue, so
two runs with the same inputs interleave alike.  `--seed` draws the lengths of the quanta, reproducibly.
"""

from __future__ import annotations

import random
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from emulator.kernel.host_waits import HostWaits
from emulator.kernel.tasks import TaskState

if TYPE_CHECKING:
    from emulator.kernel.clock import Clock
    from emulator.kernel.tasks import Task
    from emulator.kernel.waits import Wait

QUANTUM_INSNS = 200_000
LONG_TURN_INSNS = 2 * QUANTUM_INSNS  # a turn longer than that, begun alone, is cut when somebody else wants the CPU
REALTIME_QUANTA = 19  # of 20, while ordinary tasks wait: sched_rt_runtime_us is 95 %
SCHED_FIFO = 1
ALONE_INSNS = 2_000_000  # nobody else wants the CPU: the exact end of a quantum costs up to a block of single steps
_BLOCKED, _RUNNABLE = TaskState.BLOCKED, TaskState.RUNNABLE  # an enum's attribute costs a metaclass look-up


def _kept_back(task: Task) -> bool:
    """By the debugger, or by a stop signal."""
    return task.hold or (task.group.stopped and not task.group.exiting and task.trace is None)


class Scheduler:
    """The run queue and the blocked tasks' ties to what wakes them."""

    def __init__(self, clock: Clock, seed: int | None = None) -> None:
        self._clock = clock
        self._random = random.Random(seed) if seed is not None else None
        self.queue: deque[Task] = deque()
        self.host_waits = HostWaits()
        self.ranked = False  # there are real-time tasks: who runs next, and who is woken first, goes by priority
        self._realtime_quanta = 0

    def quantum(self) -> int:
        """How many instructions the next turn lasts."""
        if self._random is None:
            return QUANTUM_INSNS if self.queue else ALONE_INSNS
        return self._random.randint(500, 2 * QUANTUM_INSNS)

    def enqueue(self, task: Task) -> None:
        """Put a runnable task at the end of the queue, once."""
        if not task.queued:
            task.queued = True
            self.queue.append(task)
            if self.ranked:
                self.preempt(task)

    def turn_over(self, task: Task) -> None:
        """The task has used its quantum: to the end of the queue, but for SCHED_FIFO, which has no quanta."""
        policy, priority = task.scheduling
        self._realtime_quanta += bool(priority)
        if policy == SCHED_FIFO:
            self.put_back(task)
        else:
            self.enqueue(task)

    def preempt(self, task: Task) -> None:
        """A task may run: one of lower priority that is on the CPU makes room at once, and keeps its place."""
        current = task.kernel.current
        if current is None or current.state is not _RUNNABLE or current.queued:
            return
        if task.scheduling[1] > current.scheduling[1]:
            current.attention = True
            self.put_back(current)

    def reprioritised(self, task: Task) -> None:
        """A task has another policy or priority."""
        self.ranked = self.ranked or task.scheduling[1] > 0
        if not self.ranked:
            return
        for waiting in tuple(self.queue):
            self.preempt(waiting)

    def put_back(self, task: Task) -> None:
        """The task goes on with its turn as soon as the loop comes back."""
        if not task.queued:
            task.queued = True
            self.queue.appendleft(task)

    def go_last(self, task: Task) -> None:
        """Let everybody else who waits for the CPU go first (the task itself may not be waiting)."""
        task.quantum_end = 0
        if task.queued:
            self.queue.remove(task)
            self.queue.append(task)

    def start(self, task: Task) -> None:
        """A new task may run."""
        task.state = _RUNNABLE
        self.enqueue(task)

    def block(self, task: Task, wait: Wait) -> None:
        """Tie a task to everything that can wake it."""
        task.state = _BLOCKED
        task.wait = wait
        task.voluntary_switches += 1
        for queue in wait.queues:
            queue.add(task)
        if wait.host:
            self.host_waits.add(task, wait.host)
        if wait.deadline_ns is not None:
            task.timer = self._clock.call_at(wait.deadline_ns, partial(self.expire, task))

    def untie(self, task: Task) -> None:
        """Cut a task loose from what it waits for."""
        wait = task.wait
        if wait is None:
            return
        for queue in wait.queues:
            queue.discard(task)
        if wait.host:
            self.host_waits.remove(task, wait.host)
        if task.timer is not None:
            task.timer.cancel()
            task.timer = None
        task.wait = None

    def wake(self, task: Task) -> None:
        """The thing waited for has changed: run the handler again."""
        if task.state is _BLOCKED:
            wait = task.wait
            if wait is not None and (wait.queues or wait.host or task.timer is not None):
                self.untie(task)
            task.wait = None
            task.state = _RUNNABLE
            self.enqueue(task)

    def expire(self, task: Task) -> None:
        """The deadline has passed."""
        if task.state is _BLOCKED:
            task.timer = None
            self.untie(task)
            task.state = _RUNNABLE
            self.enqueue(task)

    def notify(self, task: Task) -> None:
        """A signal or another order has come: look before going back to user mode, and end an interruptible wait."""
        task.attention = True
        if task.state is _BLOCKED:
            wait = task.wait
            if wait is None or wait.interruptible or task.group.exiting or task.signals.pending.mask & 0x100:
                self.untie(task)
                task.state = _RUNNABLE
                self.enqueue(task)

    def yield_turn(self, task: Task) -> None:
        """The task's turn ends; it runs again after everybody who waits for the CPU."""
        if self.queue:
            self.enqueue(task)
            task.attention = True

    def remove(self, task: Task) -> None:
        """The task exits or stops."""
        self.untie(task)
        if task.queued:
            task.queued = False
            self.queue.remove(task)

    def next(self) -> Task | None:
        """Take the first task that may run; held and stopped ones keep their place."""
        if self.ranked:
            return self._next_by_priority()
        queue = self.queue
        for place, task in enumerate(queue):
            if _kept_back(task):
                continue
            if place:
                del queue[place]
            else:
                queue.popleft()
            task.queued = False
            return task
        return None

    def _next_by_priority(self) -> Task | None:
        """The first of the highest priority; now and then an ordinary one, so that real time cannot lock it out."""
        found: Task | None = None
        for task in self.queue:
            if _kept_back(task):
                continue
            priority = task.scheduling[1]
            if not priority and self._realtime_quanta >= REALTIME_QUANTA:
                self._realtime_quanta = 0
                found = task
                break
            if found is None or priority > found.scheduling[1]:
                found = task
        if found is not None:
            self.queue.remove(found)
            found.queued = False
        return found

    @property
    def contended(self) -> bool:
        """Does anybody else want the CPU?"""
        return bool(self.queue)
