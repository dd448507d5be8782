"""poll, select, epoll, eventfd, timerfd, signalfd, inotify, pidfd: their numbers and layouts.

Source: <asm-generic/poll.h>, <linux/eventpoll.h>, <linux/eventfd.h>, <linux/timerfd.h>, <linux/signalfd.h>,
<linux/inotify.h>, <linux/pidfd.h>.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Poll:
    """POLL*; EPOLL* has the same bits.  Plain integers: IntFlag costs a microsecond an operation."""

    IN: Final = 0x1
    PRI: Final = 0x2
    OUT: Final = 0x4
    ERR: Final = 0x8
    HUP: Final = 0x10
    NVAL: Final = 0x20
    RDNORM: Final = 0x40
    RDBAND: Final = 0x80
    WRNORM: Final = 0x100
    WRBAND: Final = 0x200
    MSG: Final = 0x400
    RDHUP: Final = 0x2000


ALWAYS = 0x18  # ERR and HUP are reported unasked
# select(2): which poll bits make a descriptor readable, writable, exceptional (fs/select.c)
SELECT_READ = Poll.RDNORM | Poll.RDBAND | Poll.IN | Poll.HUP | Poll.ERR
SELECT_WRITE = Poll.WRBAND | Poll.WRNORM | Poll.OUT | Poll.ERR
SELECT_EXCEPT = Poll.PRI
FD_SETSIZE_MAX = 1 << 20  # open descriptors can't pass fs.nr_open


class EpollCtl(IntEnum):
    """epoll_ctl(2)."""

    ADD = 1
    DEL = 2
    MOD = 3


EPOLL_CLOEXEC = 0o2000000
EPOLLEXCLUSIVE = 1 << 28
EPOLLWAKEUP = 1 << 29
EPOLLONESHOT = 1 << 30
EPOLLET = 1 << 31
EPOLL_FLAGS = EPOLLEXCLUSIVE | EPOLLWAKEUP | EPOLLONESHOT | EPOLLET
EPOLLEXCLUSIVE_OK = Poll.IN | Poll.OUT | ALWAYS | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE
EP_MAX_NESTS = 4
EP_MAX_EVENTS = 0x7FFFFFFF // 16

EFD_SEMAPHORE = 1
EFD_CLOEXEC = 0o2000000
EFD_NONBLOCK = 0o4000
EVENTFD_MAX = (1 << 64) - 1

TFD_CLOEXEC = 0o2000000
TFD_NONBLOCK = 0o4000
TFD_TIMER_ABSTIME = 1
TFD_TIMER_CANCEL_ON_SET = 2
TFD_IOC_SET_TICKS = 0x40085400

SFD_CLOEXEC = 0o2000000
SFD_NONBLOCK = 0o4000
SIGNALFD_SIGINFO_SIZE = 128

IN_CLOEXEC = 0o2000000
IN_NONBLOCK = 0o4000

PIDFD_NONBLOCK = 0o4000
PIDFD_THREAD = 0o200


class ClockId(IntEnum):
    """Clocks a timerfd may have (timerfd_create(2))."""

    CLOCK_REALTIME = 0
    CLOCK_MONOTONIC = 1
    CLOCK_BOOTTIME = 7
    CLOCK_REALTIME_ALARM = 8
    CLOCK_BOOTTIME_ALARM = 9
