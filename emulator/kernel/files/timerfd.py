"""timerfd: expirations of a timer, counted.  Source: timerfd_create(2), fs/timerfd.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.abi.polling import TFD_IOC_SET_TICKS, TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET, ClockId, Poll
from emulator.errors import LinuxError
from emulator.kernel.files.description import Description, ReadBuffers, scatter, total

if TYPE_CHECKING:
    from emulator.kernel.clock import Clock, Timer
    from emulator.kernel.host import Host
    from emulator.kernel.tasks import Task

_REALTIME = (ClockId.CLOCK_REALTIME, ClockId.CLOCK_REALTIME_ALARM)


class TimerfdDescription(Description):
    """One timer.  Times are nanoseconds; `_expiry_ns` is on CLOCK_MONOTONIC."""

    __slots__ = ("_cancel_on_set", "_clock", "_expiry_ns", "_interval_ns", "_offset_ns", "_ticks", "_timer", "clock_id")

    def __init__(self, host: Host, clock: Clock, clock_id: int, flags: int) -> None:
        super().__init__(host, O.RDWR | flags & O.NONBLOCK)
        self.clock_id = clock_id
        self._clock = clock
        self._expiry_ns = 0  # 0: disarmed
        self._interval_ns = 0
        self._ticks = 0
        self._timer: Timer | None = None
        self._cancel_on_set = False
        self._offset_ns = clock.realtime_offset_ns

    def seek(self, offset: int, whence: int) -> int:
        """noop_llseek(): the position never moves."""
        return 0

    def readlink_text(self) -> bytes:
        """As Linux names it."""
        return b"anon_inode:[timerfd]"

    def close(self) -> None:
        """The timer goes with it."""
        if self._timer is not None:
            self._timer.cancel()

    def fdinfo(self) -> str:
        """What /proc/PID/fdinfo shows."""
        left, interval = self.get()
        return (
            f"clockid: {self.clock_id}\nticks: {self._ticks}\nsettime flags: 0\n"
            f"it_value: ({left // 10**9}, {left % 10**9})\nit_interval: ({interval // 10**9}, {interval % 10**9})\n"
        )

    def set(self, value_ns: int, interval_ns: int, flags: int) -> None:
        """timerfd_settime(2), arguments already checked."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ticks = 0
        self._interval_ns = interval_ns
        self._cancel_on_set = bool(
            flags & TFD_TIMER_CANCEL_ON_SET and flags & TFD_TIMER_ABSTIME and self.clock_id in _REALTIME
        )
        self._offset_ns = self._clock.realtime_offset_ns
        if not value_ns:
            self._expiry_ns = 0
            return
        if not flags & TFD_TIMER_ABSTIME:
            self._expiry_ns = self._clock.monotonic_ns() + value_ns
        elif self.clock_id in _REALTIME:
            self._expiry_ns = self._clock.realtime_to_monotonic(value_ns)
        elif self.clock_id in (ClockId.CLOCK_BOOTTIME, ClockId.CLOCK_BOOTTIME_ALARM):
            boot = self.host.clock_ns(ClockId.CLOCK_BOOTTIME)
            self._expiry_ns = value_ns - boot + self._clock.monotonic_ns()
        else:
            self._expiry_ns = value_ns
        self._expiry_ns = max(self._expiry_ns, 1)
        self._arm()

    def get(self) -> tuple[int, int]:
        """timerfd_gettime(2): time left, interval."""
        self._advance()
        if not self._expiry_ns:
            return 0, self._interval_ns
        return max(self._expiry_ns - self._clock.monotonic_ns(), 1), self._interval_ns

    def _arm(self) -> None:
        self._timer = self._clock.call_at(self._expiry_ns, self._fired)

    def _fired(self) -> None:
        self._timer = None
        self._advance()
        self.waiters.wake()

    def _advance(self) -> None:
        """Count the expirations that have passed, and arm the next."""
        if not self._expiry_ns:
            return
        late = self._clock.monotonic_ns() - self._expiry_ns
        if late < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._interval_ns:
            self._ticks += 1
            self._expiry_ns = 0
            return
        passed = late // self._interval_ns + 1
        self._ticks += passed
        self._expiry_ns += passed * self._interval_ns
        self._arm()

    @property
    def _canceled(self) -> bool:
        return self._cancel_on_set and self._clock.realtime_offset_ns != self._offset_ns

    def read(self, t: Task, buffers: ReadBuffers) -> int:
        """How often it has expired since the last read; ECANCELED after a clock jump (TFD_TIMER_CANCEL_ON_SET)."""
        if total(buffers) < 8:
            raise LinuxError(E.EINVAL)
        self._advance()
        if self._canceled:
            self._offset_ns = self._clock.realtime_offset_ns
            self._ticks = 0
            raise LinuxError(E.ECANCELED)
        if not self._ticks:
            if self.nonblocking:
                raise LinuxError(E.EAGAIN)
            raise self.block("timerfd_read", Poll.IN)
        ticks, self._ticks = self._ticks, 0
        scatter(buffers, struct.pack("<Q" if t.memory.byteorder == "little" else ">Q", ticks))
        return 8

    def poll(self, events: int) -> int:
        """Readable once it has expired."""
        self._advance()
        return (Poll.IN | Poll.RDNORM) & events if self._ticks or self._canceled else 0

    def ioctl(self, t: Task, request: int, argument: int) -> int:
        """TFD_IOC_SET_TICKS."""
        if request != TFD_IOC_SET_TICKS:
            raise LinuxError(E.ENOTTY)
        ticks = t.memory.read_u64(argument)
        if not ticks:
            raise LinuxError(E.EINVAL)
        self._ticks = ticks
        self.waiters.wake()
        return 0
