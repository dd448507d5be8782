"""The clock's discipline: how it is, and that nobody may change it.

Source: adjtimex(2), clock_adjtime(2), include/uapi/linux/timex.h, kernel/time/ntp.c.
"""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.credentials import CAP_SYS_TIME
from emulator.kernel.tasks import Task
from emulator.syscalls.registry import Int, Ptr, syscall
from emulator.syscalls.times import REALTIME, clock_reader

ADJ_TICK, ADJ_ADJTIME, ADJ_OFFSET_READONLY, ADJ_OFFSET_SINGLESHOT = 0x4000, 0x8000, 0x2000, 0x8001
STA_UNSYNC, STA_NANO = 0x40, 0x2000
TIME_ERROR = 5  # not synchronised
NTP_PHASE_LIMIT_US, MAXFREQ_SCALED, TICK_US = 16_000_000, 500 << 16, 10_000
_HEAD = "IxxxxQ"  # struct timex: modes, offset
_STATE = "QQQQIxxxxQQQQQQ"  # offset, freq, maxerror, esterror, status, constant, precision, tolerance, time, tick
_PPS = 68  # bytes from ppsfreq to tai, all 0


@syscall("adjtimex")
def adjtimex(t: Task, address: Ptr) -> int:
    """adjtimex(2)."""
    return _adjust(t, address)


@syscall("clock_adjtime")
def clock_adjtime(t: Task, clock_id: Int, address: Ptr) -> int:
    """clock_adjtime(2): only CLOCK_REALTIME can be disciplined."""
    if clock_id != REALTIME:
        clock_reader(t, clock_id)
        raise LinuxError(E.EOPNOTSUPP)
    return _adjust(t, address)


def _adjust(t: Task, address: int) -> int:
    """Tell how a clock is that runs freely; who wants to change it is refused (timekeeping_validate_timex)."""
    modes, offset = t.memory.read_struct(address, _HEAD)
    allowed = t.credentials.capable(CAP_SYS_TIME)
    if modes & ADJ_ADJTIME:
        if not modes & 1:
            raise LinuxError(E.EINVAL)
        if not modes & ADJ_OFFSET_READONLY and (offset or not allowed):
            raise LinuxError(E.EPERM)
    elif modes:
        tick = t.memory.read_u64(address + 88)
        if allowed and modes & ADJ_TICK and not TICK_US * 9 // 10 <= tick <= TICK_US * 11 // 10:
            raise LinuxError(E.EINVAL)
        raise LinuxError(E.EPERM)
    seconds, nanoseconds = divmod(t.kernel.clock.realtime_ns(), 1_000_000_000)
    status = STA_UNSYNC | STA_NANO
    limit = NTP_PHASE_LIMIT_US
    t.memory.write_struct(
        address + 8, _STATE, 0, 0, limit, limit, status, 2, 1, MAXFREQ_SCALED, seconds, nanoseconds, TICK_US
    )
    t.memory.write(address + 96, bytes(_PPS))
    return TIME_ERROR
