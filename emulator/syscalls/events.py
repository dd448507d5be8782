"""Descriptors that announce events: eventfd(2), timerfd_create(2), signalfd(2), inotify(7), pidfd_open(2)."""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.abi.fcntl import AT
from emulator.abi.polling import (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    EFD_SEMAPHORE,
    IN_CLOEXEC,
    IN_NONBLOCK,
    PIDFD_NONBLOCK,
    PIDFD_THREAD,
    SFD_CLOEXEC,
    SFD_NONBLOCK,
    TFD_CLOEXEC,
    TFD_NONBLOCK,
    TFD_TIMER_ABSTIME,
    TFD_TIMER_CANCEL_ON_SET,
    ClockId,
)
from emulator.abi.signals import SI_USER, Siginfo
from emulator.errors import LinuxError
from emulator.kernel import signals
from emulator.kernel.files.eventfd import EventfdDescription
from emulator.kernel.files.inotify import InotifyDescription
from emulator.kernel.files.network import network_of
from emulator.kernel.files.pidfd import PidfdDescription
from emulator.kernel.files.procpid import ProcessDirectory
from emulator.kernel.files.signalfd import SignalfdDescription
from emulator.kernel.files.timerfd import TimerfdDescription
from emulator.kernel.files.virtual import VirtualDirectoryDescription
from emulator.kernel.paths import HostPlace, OpenPlace
from emulator.kernel.permissions import may_access, may_signal
from emulator.kernel.tasks import Task
from emulator.kernel.thread_group import ThreadGroup
from emulator.syscalls.registry import Fd, Int, Ptr, Size, UInt, syscall

IN_DONT_FOLLOW = 0x02000000
_KILL_STOP = 1 << 8 | 1 << 18


# -- eventfd -------------------------------------------------------------------------------------------------------


@syscall("eventfd2")
def eventfd2(t: Task, initial: UInt, flags: Int) -> int:
    """eventfd2(2)."""
    if flags & ~(EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK):
        raise LinuxError(E.EINVAL)
    description = EventfdDescription(t.kernel.host, initial, flags, semaphore=bool(flags & EFD_SEMAPHORE))
    return t.fds.allocate(description, cloexec=bool(flags & EFD_CLOEXEC))


@syscall("eventfd")
def eventfd(t: Task, initial: UInt) -> int:
    """eventfd(2), the old call."""
    return eventfd2(t, initial, 0)


# -- timerfd -------------------------------------------------------------------------------------------------------


@syscall("timerfd_create")
def timerfd_create(t: Task, clock_id: Int, flags: Int) -> int:
    """timerfd_create(2)."""
    if flags & ~(TFD_CLOEXEC | TFD_NONBLOCK) or clock_id not in list(ClockId):
        raise LinuxError(E.EINVAL)
    description = TimerfdDescription(t.kernel.host, t.kernel.clock, clock_id, flags)
    return t.fds.allocate(description, cloexec=bool(flags & TFD_CLOEXEC))


def _timerfd(t: Task, fd: int) -> TimerfdDescription:
    description = t.fds.get(fd)
    if not isinstance(description, TimerfdDescription):
        raise LinuxError(E.EINVAL)
    return description


def _write_itimerspec(t: Task, address: int, value_ns: int, interval_ns: int) -> None:
    t.memory.write_struct(address, "llll", *divmod(interval_ns, 10**9), *divmod(value_ns, 10**9))


@syscall("timerfd_settime")
def timerfd_settime(t: Task, fd: Fd, flags: Int, new: Ptr, old: Ptr) -> int:
    """timerfd_settime(2)."""
    seconds = t.memory.read_struct(new, "llll")
    if flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET):
        raise LinuxError(E.EINVAL)
    interval_s, interval_ns, value_s, value_ns = seconds
    if not (0 <= interval_ns < 10**9 and 0 <= value_ns < 10**9 and interval_s >= 0 and value_s >= 0):
        raise LinuxError(E.EINVAL)
    timer = _timerfd(t, fd)
    before = timer.get()
    timer.set(value_s * 10**9 + value_ns, interval_s * 10**9 + interval_ns, flags)
    if old:
        _write_itimerspec(t, old, *before)
    return 0


@syscall("timerfd_gettime")
def timerfd_gettime(t: Task, fd: Fd, current: Ptr) -> int:
    """timerfd_gettime(2)."""
    _write_itimerspec(t, current, *_timerfd(t, fd).get())
    return 0


# -- signalfd ------------------------------------------------------------------------------------------------------


@syscall("signalfd4")
def signalfd4(t: Task, fd: Fd, mask: Ptr, mask_size: Size, flags: Int) -> int:
    """signalfd4(2): a new descriptor, or a new mask for an old one."""
    if mask_size != 8:
        raise LinuxError(E.EINVAL)
    wanted = t.memory.read_u64(mask) & ~_KILL_STOP
    if flags & ~(SFD_CLOEXEC | SFD_NONBLOCK):
        raise LinuxError(E.EINVAL)
    if fd == -1:
        return t.fds.allocate(SignalfdDescription(t, wanted, flags), cloexec=bool(flags & SFD_CLOEXEC))
    description = t.fds.get(fd)
    if not isinstance(description, SignalfdDescription):
        raise LinuxError(E.EINVAL)
    description.set_mask(wanted)
    return fd


@syscall("signalfd")
def signalfd(t: Task, fd: Fd, mask: Ptr, mask_size: Size) -> int:
    """signalfd(2), the old call."""
    return signalfd4(t, fd, mask, mask_size, 0)


# -- inotify -------------------------------------------------------------------------------------------------------


@syscall("inotify_init1")
def inotify_init1(t: Task, flags: Int) -> int:
    """inotify_init1(2)."""
    if flags & ~(IN_CLOEXEC | IN_NONBLOCK):
        raise LinuxError(E.EINVAL)
    description = InotifyDescription(t.kernel.host, network_of(t).host, flags)
    return t.fds.allocate(description, cloexec=bool(flags & IN_CLOEXEC))


@syscall("inotify_init")
def inotify_init(t: Task) -> int:
    """inotify_init(2)."""
    return inotify_init1(t, 0)


def _inotify(t: Task, fd: int) -> InotifyDescription:
    description = t.fds.get(fd)
    if not isinstance(description, InotifyDescription):
        raise LinuxError(E.EINVAL)
    return description


@syscall("inotify_add_watch")
def inotify_add_watch(t: Task, fd: Fd, path: Ptr, mask: UInt) -> int:
    """inotify_add_watch(2): the path is the guest's."""
    if not mask & 0xFFF:
        raise LinuxError(E.EINVAL)
    description = _inotify(t, fd)
    name = t.memory.read_cstring(path)
    place = t.kernel.vfs.walker.resolve(t, AT.FDCWD, name, follow=not mask & IN_DONT_FOLLOW)
    if isinstance(place, OpenPlace):
        host_name = b"/proc/self/fd/%d" % place.description.need_host_fd(E.EINVAL)
    elif not isinstance(place, HostPlace):
        raise LinuxError(E.ENOENT if place.node is None else E.EINVAL)
    elif place.dir_fd is None:
        host_name = place.name
    else:
        host_name = b"/proc/self/fd/%d/%s" % (place.dir_fd, place.name)
    if isinstance(place, HostPlace) and not place.follow:
        mask |= IN_DONT_FOLLOW
    return description.sockets.inotify_add_watch(description.fd, host_name, mask)


@syscall("inotify_rm_watch")
def inotify_rm_watch(t: Task, fd: Fd, watch: Int) -> int:
    """inotify_rm_watch(2)."""
    description = _inotify(t, fd)
    description.sockets.inotify_rm_watch(description.fd, watch)
    return 0


# -- pidfd ---------------------------------------------------------------------------------------------------------


def _group(t: Task, pid: int) -> ThreadGroup:
    task = t.kernel.tasks.find(pid)
    if task is None:
        raise LinuxError(E.ESRCH)
    return task.group


@syscall("pidfd_open")
def pidfd_open(t: Task, pid: Int, flags: UInt) -> int:
    """pidfd_open(2): a thread that is no leader needs PIDFD_THREAD."""
    if flags & ~(PIDFD_NONBLOCK | PIDFD_THREAD) or pid <= 0:
        raise LinuxError(E.EINVAL)
    task = t.kernel.tasks.find(pid)
    if flags & PIDFD_THREAD:
        if task is None:
            raise LinuxError(E.ESRCH)
        description = PidfdDescription(t.kernel.host, task.group, flags, task)
    else:
        if task is not None and task.group.tgid != pid:
            raise LinuxError(E.ENOENT)
        description = PidfdDescription(t.kernel.host, _group(t, pid), flags)
    return t.fds.allocate(description, cloexec=True)


def _pidfd(t: Task, fd: int) -> PidfdDescription:
    description = t.fds.get(fd)
    if not isinstance(description, PidfdDescription):
        raise LinuxError(E.EBADF)
    return description


def _signalled(t: Task, fd: int) -> ThreadGroup:
    """The process a pidfd names, or an open /proc/PID (pidfd_send_signal(2), NOTES)."""
    description = t.fds.get(fd)
    if isinstance(description, VirtualDirectoryDescription) and isinstance(description.node, ProcessDirectory):
        return description.node.task.group
    return _pidfd(t, fd).group


@syscall("pidfd_send_signal")
def pidfd_send_signal(t: Task, fd: Fd, signo: Int, info: Ptr, flags: UInt) -> int:
    """pidfd_send_signal(2)."""
    if flags:
        raise LinuxError(E.EINVAL)
    group = _signalled(t, fd)
    if info:
        data = t.memory.read(info, 128)
        siginfo = Siginfo.unpack(data, t.arch.bits, t.arch.struct_order)
        if siginfo.signo != signo:
            raise LinuxError(E.EINVAL)
        if (siginfo.code >= 0 or siginfo.code == -6) and group is not t.group:
            raise LinuxError(E.EPERM)
    else:
        siginfo = Siginfo(signo, SI_USER, pid=t.group.tgid, uid=t.credentials.ruid)
    if group.reaped:
        raise LinuxError(E.ESRCH)
    leader = group.leader
    if leader is not None and not may_signal(t, leader, signo):
        raise LinuxError(E.EPERM)
    if not 0 <= signo <= 64:
        raise LinuxError(E.EINVAL)
    if signo:
        signals.send_to_group(group, siginfo)
    return 0


@syscall("pidfd_getfd")
def pidfd_getfd(t: Task, fd: Fd, target: Fd, flags: UInt) -> int:
    """pidfd_getfd(2): another process' open file description."""
    if flags:
        raise LinuxError(E.EINVAL)
    group = _pidfd(t, fd).group
    task = next(iter(group.tasks.values()), None)
    if task is None:
        raise LinuxError(E.ESRCH)
    if not may_access(t, task):
        raise LinuxError(E.EPERM)
    return t.fds.allocate(task.fds.get_raw(target), cloexec=True)
