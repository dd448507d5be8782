"""Clocks, sleeping, timers, and what CPU time was used.

Source: clock_gettime(2), nanosleep(2), clock_nanosleep(2), setitimer(2), timer_create(2), times(2), getrusage(2).
"""

from __future__ import annotations

from collections.abc import Callable

from emulator.abi.errno import E
from emulator.abi.signals import NSIG
from emulator.errors import LinuxError
from emulator.kernel.credentials import CAP_SYS_TIME
from emulator.kernel.tasks import Task
from emulator.kernel.thread_group import RLIMIT_SIGPENDING, Usage
from emulator.kernel.timers import (
    ITIMER_PROF,
    ITIMER_REAL,
    SIGEV_NONE,
    SIGEV_SIGNAL,
    SIGEV_THREAD,
    SIGEV_THREAD_ID,
    PosixTimer,
    itimer,
)
from emulator.kernel.waits import Block, Wait
from emulator.syscalls.registry import Int, Ptr, UInt, syscall
from emulator.syscalls.waiting import write_rusage

REALTIME, MONOTONIC, PROCESS_CPUTIME, THREAD_CPUTIME = range(4)
MONOTONIC_RAW, REALTIME_COARSE, MONOTONIC_COARSE, BOOTTIME = 4, 5, 6, 7  # no RTC: no alarm clocks (8, 9)
TAI = 11
TICK_NS = 10_000_000  # USER_HZ
_MONOTONIC_KIND = (MONOTONIC, MONOTONIC_RAW, MONOTONIC_COARSE, BOOTTIME)
_REALTIME_KIND = (REALTIME, REALTIME_COARSE, TAI)


def _cpu_clock(t: Task, clock_id: int) -> Callable[[], int]:
    """A CPU-time clock: the fixed two, or one encoded from a pid or tid (clock_getcpuclockid(3))."""
    kernel = t.kernel
    if clock_id == PROCESS_CPUTIME:
        return lambda: kernel.cpu_time(t.group)
    if clock_id == THREAD_CPUTIME:
        return lambda: kernel.thread_time(t)
    if clock_id < 0 and clock_id & 3 != 3:
        pid = ~(clock_id >> 3)
        task = t if pid == 0 else kernel.tasks.find(pid)
        if task is None:
            raise LinuxError(E.EINVAL)
        if clock_id & 4:
            return lambda: kernel.thread_time(task)
        return lambda: kernel.cpu_time(task.group)
    raise LinuxError(E.EINVAL)


def clock_reader(t: Task, clock_id: int) -> Callable[[], int]:
    """The function that reads a clock; EINVAL for one that is not there."""
    if clock_id in _MONOTONIC_KIND:
        return t.kernel.clock.monotonic_ns
    if clock_id in _REALTIME_KIND:
        return t.kernel.clock.realtime_ns
    return _cpu_clock(t, clock_id)


@syscall("clock_gettime")
def clock_gettime(t: Task, clock_id: Int, address: Ptr) -> int:
    """clock_gettime(2)."""
    clock = t.kernel.clock
    if clock_id == MONOTONIC:
        now = clock.monotonic_ns()
    elif clock_id == REALTIME:
        now = clock.realtime_ns()
    else:
        now = clock_reader(t, clock_id)()
    t.memory.write_timespec(address, now)
    return 0


@syscall("clock_getres")
def clock_getres(t: Task, clock_id: Int, address: Ptr) -> int:
    """clock_getres(2)."""
    clock_reader(t, clock_id)
    if address:
        t.memory.write_timespec(address, 4_000_000 if clock_id in (REALTIME_COARSE, MONOTONIC_COARSE) else 1)
    return 0


@syscall("clock_settime")
def clock_settime(t: Task, clock_id: Int, address: Ptr) -> int:
    """clock_settime(2): the guest's own CLOCK_REALTIME."""
    if clock_id != REALTIME:
        clock_reader(t, clock_id)
        raise LinuxError(E.EINVAL)
    _set_time(t, t.memory.read_timespec(address))
    return 0


def _set_time(t: Task, realtime_ns: int) -> None:
    if not t.credentials.capable(CAP_SYS_TIME):
        raise LinuxError(E.EPERM)
    clock = t.kernel.clock
    clock.realtime_offset_ns += realtime_ns - clock.realtime_ns()


@syscall("gettimeofday")
def gettimeofday(t: Task, address: Ptr, zone: Ptr) -> int:
    """gettimeofday(2)."""
    if address:
        t.memory.write_timeval(address, t.kernel.clock.realtime_ns())
    if zone:
        t.memory.write_struct(zone, "ii", 0, 0)
    return 0


@syscall("settimeofday")
def settimeofday(t: Task, address: Ptr, zone: Ptr) -> int:
    """settimeofday(2): the guest's own clock."""
    if address:
        _set_time(t, t.memory.read_timeval(address))
    return 0


@syscall("time")
def time(t: Task, address: Ptr) -> int:
    """time(2)."""
    seconds = t.kernel.clock.realtime_ns() // 1_000_000_000
    if address:
        t.memory.write_ptr(address, seconds)
    return seconds


# -- sleeping --------------------------------------------------------------------------------------------------------

TIMER_ABSTIME = 1


def _sleep(t: Task, deadline_ns: int, remaining: int, *, absolute: bool) -> int:
    """Block until the deadline; a signal leaves the rest at `remaining` and lets restart_syscall go on."""
    if t.kernel.clock.monotonic_ns() >= deadline_ns:
        return 0

    def interrupted(task: Task) -> None:
        if absolute:
            return
        if remaining:
            left = max(0, deadline_ns - task.kernel.clock.monotonic_ns())
            task.memory.write_timespec(remaining, left)
        task.call.restart = lambda again: _sleep(again, deadline_ns, remaining, absolute=False)

    restart = E.ERESTARTNOHAND if absolute else E.ERESTART_RESTARTBLOCK
    raise Block(Wait("hrtimer_nanosleep", deadline_ns=deadline_ns, restart=restart, interrupted=interrupted))


@syscall("nanosleep")
def nanosleep(t: Task, wanted: Ptr, remaining: Ptr) -> int:
    """nanosleep(2)."""
    if t.call.deadline_ns is None:
        duration = t.memory.read_timespec(wanted)
        t.call.deadline_ns = t.kernel.clock.monotonic_ns() + duration
    return _sleep(t, t.call.deadline_ns, remaining, absolute=False)


@syscall("clock_nanosleep")
def clock_nanosleep(t: Task, clock_id: Int, flags: Int, wanted: Ptr, remaining: Ptr) -> int:
    """clock_nanosleep(2)."""
    absolute = bool(flags & TIMER_ABSTIME)
    if t.call.deadline_ns is None:
        if clock_id == THREAD_CPUTIME:
            raise LinuxError(E.EOPNOTSUPP)
        if clock_id in (MONOTONIC_RAW, REALTIME_COARSE, MONOTONIC_COARSE):
            raise LinuxError(E.EOPNOTSUPP)
        clock = t.kernel.clock
        now = clock_reader(t, clock_id)()
        moment = t.memory.read_timespec(wanted)
        left = moment - now if absolute else moment
        t.call.deadline_ns = clock.monotonic_ns() + left
    return _sleep(t, t.call.deadline_ns, remaining, absolute=absolute)


# -- interval timers -------------------------------------------------------------------------------------------------


def _write_itimerval(t: Task, address: int, interval_ns: int, left_ns: int) -> None:
    t.memory.write_timeval(address, interval_ns)
    t.memory.write_timeval(address + 2 * t.memory.pointer_size, left_ns)


@syscall("getitimer")
def getitimer(t: Task, which: Int, address: Ptr) -> int:
    """getitimer(2)."""
    if not ITIMER_REAL <= which <= ITIMER_PROF:
        raise LinuxError(E.EINVAL)
    timer = itimer(t.kernel, t, which)
    _write_itimerval(t, address, timer.interval_ns, timer.left_ns())
    return 0


@syscall("setitimer")
def setitimer(t: Task, which: Int, new: Ptr, old: Ptr) -> int:
    """setitimer(2)."""
    interval = value = 0
    if new:
        interval = t.memory.read_timeval(new)
        value = t.memory.read_timeval(new + 2 * t.memory.pointer_size)
    if not ITIMER_REAL <= which <= ITIMER_PROF:
        raise LinuxError(E.EINVAL)
    timer = itimer(t.kernel, t, which)
    before = timer.interval_ns, timer.left_ns()
    now = t.kernel.clock.monotonic_ns() if which == ITIMER_REAL else t.kernel.cpu_time(t.group)
    timer.set(now + value if value else 0, interval)
    if old:
        _write_itimerval(t, old, *before)
    return 0


@syscall("alarm")
def alarm(t: Task, seconds: UInt) -> int:
    """alarm(2)."""
    timer = itimer(t.kernel, t, ITIMER_REAL)
    left = timer.left_ns()
    now = t.kernel.clock.monotonic_ns()
    timer.set(now + seconds * 1_000_000_000 if seconds else 0, 0)
    whole, rest = divmod(left, 1_000_000_000)
    if (whole == 0 and rest) or rest >= 500_000_000:
        whole += 1
    return whole


# -- POSIX timers ----------------------------------------------------------------------------------------------------


@syscall("timer_create")
def timer_create(t: Task, clock_id: Int, event: Ptr, out: Ptr) -> int:
    """timer_create(2)."""
    now = clock_reader(t, clock_id)
    if clock_id in (MONOTONIC_RAW, REALTIME_COARSE, MONOTONIC_COARSE):
        raise LinuxError(E.EOPNOTSUPP)
    group = t.group
    if len(group.posix_timers) + len(group.pending) >= group.rlimits[RLIMIT_SIGPENDING][0]:
        raise LinuxError(E.EAGAIN)  # each has a queued signal of its own from the start
    number = group.timer_serial
    timer = PosixTimer(
        t.kernel, group, number, clock_id, now, real=clock_id in _MONOTONIC_KIND or clock_id in _REALTIME_KIND
    )
    if event:
        value, signo, notify, tid = t.memory.read_struct(event, "Liii")
        if notify not in (SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_THREAD_ID):
            raise LinuxError(E.EINVAL)
        if notify != SIGEV_NONE and not 1 <= signo <= NSIG:
            raise LinuxError(E.EINVAL)
        if notify == SIGEV_THREAD_ID and tid not in group.tasks:
            raise LinuxError(E.EINVAL)
        timer.value, timer.signo, timer.notify, timer.tid = value, signo, notify, tid
    t.memory.write_u32(out, number)
    group.timer_serial += 1
    group.posix_timers[number] = timer
    return 0


def _timer(t: Task, number: int) -> PosixTimer:
    timer: PosixTimer | None = t.group.posix_timers.get(number)
    if timer is None:
        raise LinuxError(E.EINVAL)
    return timer


@syscall("timer_settime")
def timer_settime(t: Task, number: Int, flags: Int, new: Ptr, old: Ptr) -> int:
    """timer_settime(2)."""
    if not new:
        raise LinuxError(E.EINVAL)
    size = 2 * t.memory.pointer_size
    interval, value = t.memory.read_timespec(new), t.memory.read_timespec(new + size)
    posix = _timer(t, number)
    timer = posix.timer
    before = timer.interval_ns, timer.left_ns()
    now = clock_reader(t, posix.clock_id)()
    if not value:
        timer.set(0, interval)
    else:
        timer.set(value if flags & TIMER_ABSTIME else now + value, interval)
    if old:
        t.memory.write_timespec(old, before[0])
        t.memory.write_timespec(old + size, before[1])
    return 0


@syscall("timer_gettime")
def timer_gettime(t: Task, number: Int, address: Ptr) -> int:
    """timer_gettime(2)."""
    timer = _timer(t, number).timer
    t.memory.write_timespec(address, timer.interval_ns)
    t.memory.write_timespec(address + 2 * t.memory.pointer_size, timer.left_ns())
    return 0


@syscall("timer_getoverrun")
def timer_getoverrun(t: Task, number: Int) -> int:
    """timer_getoverrun(2)."""
    return _timer(t, number).last_overrun


@syscall("timer_delete")
def timer_delete(t: Task, number: Int) -> int:
    """timer_delete(2)."""
    _timer(t, number).cancel()
    del t.group.posix_timers[number]
    return 0


# -- CPU time --------------------------------------------------------------------------------------------------------


@syscall("times")
def times(t: Task, address: Ptr) -> int:
    """times(2)."""
    kernel, group = t.kernel, t.group
    if address:
        mine, children = kernel.usage_of(group), group.child_usage
        times_ns = (mine.user_ns, mine.system_ns, children.user_ns, children.system_ns)
        t.memory.write_struct(address, "llll", *(time // TICK_NS for time in times_ns))
    return kernel.clock.monotonic_ns() // TICK_NS


RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD = 0, -1, 1


@syscall("getrusage")
def getrusage(t: Task, who: Int, address: Ptr) -> int:
    """getrusage(2)."""
    usage = Usage()
    match who:
        case 0:
            usage = t.kernel.usage_of(t.group)
        case -1:
            usage = t.group.child_usage
        case 1:
            t.kernel.charge(t)
            usage.user_ns, usage.system_ns, usage.switches = t.user_ns, t.system_ns, t.voluntary_switches
        case _:
            raise LinuxError(E.EINVAL)
    if who >= 0:
        usage.peak_kib = max(t.group.usage.peak_kib, t.kernel.resident_kib(t.space))
    write_rusage(t, address, usage)
    return 0
