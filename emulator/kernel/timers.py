"""Interval timers and POSIX timers: what sends signals when time passes.

Rule: a timer is rearmed from its own schedule, never from "now", so it does not drift; what was missed is its overrun.
Source: setitimer(2), timer_create(2), timer_getoverrun(2), kernel/time/posix-timers.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.abi.signals import SI_TIMER, Siginfo, Signal, signal_bit
from emulator.kernel import signals
from emulator.kernel.thread_group import RLIM_INFINITY, RLIMIT_CPU

if TYPE_CHECKING:
    from collections.abc import Callable

    from emulator.kernel.clock import Timer
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.tasks import Task
    from emulator.kernel.thread_group import ThreadGroup

ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF = 0, 1, 2
SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD, SIGEV_THREAD_ID = 0, 1, 2, 4
CPU_TICK_NS = 4_000_000
SECOND_NS = 1_000_000_000
_CPU_LIMIT = -1  # beside the ITIMER_*
DELAYTIMER_MAX = 0x7FFFFFFF


class IntervalTimer:
    """A deadline in some clock that may repeat; `fire` is called when it passes."""

    __slots__ = ("_fire", "_kernel", "_now", "_timer", "deadline_ns", "interval_ns", "real")

    def __init__(self, kernel: Kernel, now: Callable[[], int], fire: Callable[[int], None], *, real: bool) -> None:
        self._kernel = kernel
        self._now = now  # the clock the deadline is in
        self._fire = fire  # called with the number of expirations
        self._timer: Timer | None = None
        self.real = real  # the clock runs by itself; CPU clocks are looked at every tick
        self.deadline_ns = 0  # 0: disarmed
        self.interval_ns = 0

    def set(self, deadline_ns: int, interval_ns: int) -> None:
        """Arm for a moment of its clock; 0 disarms."""
        self.cancel()
        self.deadline_ns, self.interval_ns = deadline_ns, interval_ns
        if deadline_ns:
            self._arm()

    def left_ns(self) -> int:
        """Time to the next expiry; 0 when disarmed."""
        if not self.deadline_ns:
            return 0
        return max(1, self.deadline_ns - self._now())

    def cancel(self) -> None:
        """Disarm."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.deadline_ns = 0

    def _arm(self) -> None:
        left = self.deadline_ns - self._now()
        if not self.real:
            left = max(left, CPU_TICK_NS)
        clock = self._kernel.clock
        self._timer = clock.call_at(clock.monotonic_ns() + left, self._expired)

    def _expired(self) -> None:
        self._timer = None
        now = self._now()
        if now < self.deadline_ns:
            self._arm()
            return
        if self.interval_ns:
            missed = (now - self.deadline_ns) // self.interval_ns
            self.deadline_ns += (missed + 1) * self.interval_ns
            self._arm()
            self._fire(missed + 1)
        else:
            self.deadline_ns = 0
            self._fire(1)


class PosixTimer:
    """timer_create(2)'s object."""

    __slots__ = (
        "_group",
        "_kernel",
        "_overrun",
        "clock_id",
        "id",
        "last_overrun",
        "notify",
        "signo",
        "tid",
        "timer",
        "value",
    )

    def __init__(
        self, kernel: Kernel, group: ThreadGroup, number: int, clock_id: int, now: Callable[[], int], *, real: bool
    ) -> None:
        self._kernel = kernel
        self._group = group
        self._overrun = 0
        self.id = number
        self.clock_id = clock_id
        self.notify = SIGEV_SIGNAL
        self.signo: int = Signal.SIGALRM
        self.value = number
        self.tid = 0
        self.last_overrun = 0
        self.timer = IntervalTimer(kernel, now, self._fire, real=real)

    def cancel(self) -> None:
        """Disarm."""
        self.timer.cancel()

    def _fire(self, count: int) -> None:
        if self.notify == SIGEV_NONE:
            return
        info = Siginfo(self.signo, SI_TIMER, timer_id=self.id, value=self.value)
        if self.notify == SIGEV_THREAD_ID:
            task = self._group.tasks.get(self.tid)
            if task is None:
                return
            if self._queued(task.signals.pending):
                self._overrun += count
                return
            self._overrun += count - 1
            signals.send_to_task(task, info)
        else:
            if self._queued(self._group.pending):
                self._overrun += count
                return
            self._overrun += count - 1
            signals.send_to_group(self._group, info)

    def _queued(self, queue: signals.SignalQueue) -> bool:
        """Is this timer's signal still pending? A timer queues one signal at most."""
        if not queue.mask & signal_bit(self.signo):
            return False
        return any(info.code == SI_TIMER and info.timer_id == self.id for info in queue.peek())

    def taken(self) -> int:
        """The signal is delivered: its overrun count, which starts again from 0."""
        self.last_overrun = min(self._overrun, DELAYTIMER_MAX)
        self._overrun = 0
        return self.last_overrun


def arm_cpu_limit(kernel: Kernel, group: ThreadGroup) -> None:
    """RLIMIT_CPU: SIGXCPU at the soft limit and every second after it, SIGKILL at the hard one (getrlimit(2))."""
    soft, hard = group.rlimits[RLIMIT_CPU]
    timer: IntervalTimer | None = group.itimers.get(_CPU_LIMIT)
    if timer is None:
        if soft == RLIM_INFINITY:
            return

        def fire(_count: int) -> None:
            if kernel.cpu_time(group) >= group.rlimits[RLIMIT_CPU][1] * SECOND_NS:
                kernel.kill_group(group)
            else:
                signals.send_to_group(group, signals.kernel_info(Signal.SIGXCPU))

        timer = IntervalTimer(kernel, lambda: kernel.cpu_time(group), fire, real=False)
        group.itimers[_CPU_LIMIT] = timer
    if soft == RLIM_INFINITY:
        timer.cancel()
    else:
        timer.set(max(min(soft, hard), 1) * SECOND_NS, SECOND_NS)


def itimer(kernel: Kernel, task: Task, which: int) -> IntervalTimer:
    """The process' interval timer, made on first use."""
    group = task.group
    timer: IntervalTimer | None = group.itimers.get(which)
    if timer is None:
        signo = (Signal.SIGALRM, Signal.SIGVTALRM, Signal.SIGPROF)[which]
        cpu_time = kernel.user_time if which == ITIMER_VIRTUAL else kernel.cpu_time
        now = kernel.clock.monotonic_ns if which == ITIMER_REAL else lambda: cpu_time(group)
        timer = IntervalTimer(
            kernel,
            now,
            lambda _count: signals.send_to_group(group, signals.kernel_info(signo)),
            real=which == ITIMER_REAL,
        )
        group.itimers[which] = timer
    return timer
