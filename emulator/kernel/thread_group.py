"""A process: what its threads share.

Source: credentials(7) (process groups and sessions), wait(2), getrlimit(2), <asm-generic/resource.h>.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emulator.kernel.signals import SigHand, SignalQueue
from emulator.kernel.waits import WaitQueue

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task, TaskUid

RLIM_INFINITY = (1 << 64) - 1
(
    RLIMIT_CPU,
    RLIMIT_FSIZE,
    RLIMIT_DATA,
    RLIMIT_STACK,
    RLIMIT_CORE,
    RLIMIT_RSS,
    RLIMIT_NPROC,
    RLIMIT_NOFILE,
    RLIMIT_MEMLOCK,
    RLIMIT_AS,
    RLIMIT_LOCKS,
    RLIMIT_SIGPENDING,
    RLIMIT_MSGQUEUE,
    RLIMIT_NICE,
    RLIMIT_RTPRIO,
    RLIMIT_RTTIME,
) = range(16)


class Rlimits(list[tuple[int, int]]):
    """(soft, hard) by RLIMIT_*."""

    def soft(self, name: str) -> int:
        """The soft limit by its name without the prefix: "STACK"."""
        return self[_RLIMIT_NAMES.index(name)][0]


_RLIMIT_NAMES = (
    *("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS"),
    *("SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"),
)


def default_rlimits() -> Rlimits:
    """Those of a Debian login."""
    limits = Rlimits([(RLIM_INFINITY, RLIM_INFINITY)] * 16)
    limits[RLIMIT_STACK] = (8 << 20, RLIM_INFINITY)
    limits[RLIMIT_CORE] = (0, RLIM_INFINITY)
    limits[RLIMIT_NPROC] = (30000, 30000)
    limits[RLIMIT_NOFILE] = (1024, 1048576)
    limits[RLIMIT_MEMLOCK] = (8 << 20, 8 << 20)
    limits[RLIMIT_SIGPENDING] = (30000, 30000)
    limits[RLIMIT_MSGQUEUE] = (819200, 819200)
    limits[RLIMIT_NICE] = (0, 0)
    limits[RLIMIT_RTPRIO] = (0, 0)
    return limits


class Session:
    """A session and its controlling terminal (a tty object of kernel/files/tty.py)."""

    __slots__ = ("foreground_pgid", "sid", "tty")

    def __init__(self, sid: int) -> None:
        self.sid = sid
        self.tty: Any = None  # retained
        self.foreground_pgid = 0

    def drop_terminal(self) -> None:
        """The session has no controlling terminal any more."""
        tty, self.tty = self.tty, None
        if tty is not None:
            tty.release()


class Usage:
    """What getrusage(2) and times(2) count."""

    __slots__ = ("major_faults", "minor_faults", "peak_kib", "switches", "system_ns", "user_ns")

    def __init__(self) -> None:
        self.user_ns = 0
        self.system_ns = 0
        self.minor_faults = 0
        self.major_faults = 0
        self.switches = 0
        self.peak_kib = 0

    def add(self, other: Usage) -> None:
        """Accumulate a reaped child's, or an exited thread's."""
        self.user_ns += other.user_ns
        self.system_ns += other.system_ns
        self.minor_faults += other.minor_faults
        self.major_faults += other.major_faults
        self.switches += other.switches
        self.peak_kib = max(self.peak_kib, other.peak_kib)


class ThreadGroup:
    """One process, from its first thread to its reaping."""

    __slots__ = (
        "__weakref__",
        "argv",
        "child_event",
        "child_usage",
        "children",
        "coredump_filter",
        "dumpable",
        "envp",
        "exe",
        "exec_count",
        "exit_event",
        "exit_signal",
        "exit_status",
        "exiting",
        "forked_by",
        "itimers",
        "leader",
        "oom_score_adj",
        "oom_score_adj_min",
        "parent",
        "pending",
        "pgid",
        "posix_timers",
        "reaped",
        "registrations",
        "rlimits",
        "session",
        "sighand",
        "start_ns",
        "stop_report",
        "stop_signal",
        "stopped",
        "subreaper",
        "tasks",
        "tgid",
        "timer_serial",
        "tracees",
        "usage",
    )

    def __init__(self, tgid: int, parent: ThreadGroup | None, pgid: int, session: Session, sighand: SigHand) -> None:
        self.tgid = tgid
        self.parent = parent  # None: nobody waits for it, it is reaped by itself (child of "init")
        self.forked_by: Task | None = None  # the parent's thread that made it, or took it over; PTRACE_TRACEME means it
        self.children: dict[int, ThreadGroup] = {}
        self.pgid = pgid
        self.session = session
        self.sighand = sighand
        self.pending = SignalQueue()
        self.tracees: dict[TaskUid, Task] = {}  # traced by one of our threads
        self.tasks: dict[int, Task] = {}  # by tid, live ones; the leader first
        self.leader: Task | None = None
        self.exit_signal = 17  # SIGCHLD, or what clone said
        self.exit_status = 0  # wait status
        self.exiting = False  # exit_group or a fatal signal has begun
        self.reaped = False
        self.exit_event = WaitQueue()  # woken when it becomes a zombie: pidfd
        self.child_event = WaitQueue()  # woken when a child changes state: wait4
        self.stopped = False  # job control: group stop in force
        self.stop_signal = 0
        self.stop_report: int | None = None  # unreported CLD_STOPPED / CLD_CONTINUED, as a wait status
        self.subreaper = False
        self.registrations: set[str] = set()  # what membarrier(2) was told
        self.rlimits = default_rlimits()
        self.usage = Usage()  # of threads that have exited
        self.child_usage = Usage()
        self.itimers: dict[int, Any] = {}
        self.posix_timers: dict[int, Any] = {}
        self.timer_serial = 0
        self.exe = ""  # guest path of the program
        self.argv: tuple[bytes, ...] = ()
        self.envp: tuple[bytes, ...] = ()
        self.start_ns = 0
        self.dumpable = 1
        self.oom_score_adj = 0
        self.oom_score_adj_min = 0  # what an unprivileged process may go back down to
        self.coredump_filter = 0x33
        self.exec_count = 0

    @property
    def sid(self) -> int:
        """The session id."""
        return self.session.sid

    @property
    def ppid(self) -> int:
        """The parent's process id; init's for the first process and orphans, 0 for init."""
        return self.parent.tgid if self.parent is not None else int(self.tgid != 1)

    @property
    def comm(self) -> str:
        """The leader's name (/proc/PID/comm)."""
        return self.leader.name if self.leader is not None else ""

    @property
    def zombie(self) -> bool:
        """Every thread has exited and nobody has waited for it yet."""
        return not self.tasks and not self.reaped

    def __repr__(self) -> str:
        return f"<ThreadGroup {self.tgid} {self.comm!r} {len(self.tasks)} tasks>"
