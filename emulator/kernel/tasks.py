"""Tasks have lifetimes.

Rule: a task is named by `TaskUid(tid, serial)`, because tids are recycled; every look-up answers Live, Exited or
Unknown, and an exited task keeps its last registers until it is reaped, never anybody else's.
Source: clone(2), credentials(7), set_tid_address(2).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from emulator.kernel.credentials import Credentials
from emulator.kernel.signals import TaskSignals
from emulator.kernel.waits import Wait, WaitQueue

if TYPE_CHECKING:
    from emulator.abi.signals import Siginfo
    from emulator.arch.model import Arch, Fault
    from emulator.kernel.address_space import AddressSpace
    from emulator.kernel.clock import Timer
    from emulator.kernel.events import StepRequest
    from emulator.kernel.fd_table import FdTable
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.mempolicy import Policy
    from emulator.kernel.paths import FsState
    from emulator.kernel.ptrace import Trace
    from emulator.kernel.seccomp import Seccomp
    from emulator.kernel.thread_group import ThreadGroup
    from emulator.kernel.user_memory import UserMemory


@dataclass(frozen=True, slots=True, order=True)
class TaskUid:
    """Identity of a task for ever: the tid it had and a serial number that is never used again."""

    tid: int
    serial: int


class TaskState(Enum):
    """Where a task is in its life, from its creation until it has been reaped."""

    NEW = "new"
    RUNNABLE = "runnable"
    BLOCKED = "blocked"
    STOPPED = "stopped"
    EXITING = "exiting"
    ZOMBIE = "zombie"
    DEAD = "dead"


class Control(Exception):  # noqa: N818 - control flow, not an error
    """Raised by a handler that has dealt with the registers itself: nothing is to be written."""


class RegistersReplaced(Control):
    """execve, rt_sigreturn: the task goes on with other registers."""


class Gone(Control):
    """exit, exit_group: there is no task to go on."""


class CallPhase(Enum):
    """How far the current system call is."""

    NONE = "user mode"
    ENTERED = "the instruction ran; onlookers have not been told"
    ENTRY_TRACED = "the tracer has seen the entry"
    ENTRY_SEEN = "the debugger has seen the entry"
    SECCOMP_TRACED = "the tracer has seen what a seccomp filter told it"
    RUNNING = "in the handler, or blocked in it"
    RETURNED = "the result is written"
    RETURNED_QUIET = "the result is written and logged"
    EXIT_TRACED = "the tracer is next to see the return"
    EXIT_SEEN = "the debugger is next to see the return"
    DONE = "everybody has seen everything"


class Call:
    """The system call a task is in; handlers keep here what must survive a block.

    `deadline_ns` and `memo` are None when a handler is entered for the first time.
    """

    __slots__ = ("args", "check_restart", "deadline_ns", "memo", "number", "phase", "restart")

    def __init__(self) -> None:
        self.number = -1
        self.args: tuple[int, ...] = (0, 0, 0, 0, 0, 0)
        self.deadline_ns: int | None = None
        self.memo: Any = None
        self.phase = CallPhase.NONE
        self.restart: Any = None  # what restart_syscall(2) continues: Callable[[Task], int]
        self.check_restart = False  # the result register may hold -ERESTART*: look before going to user mode

    def finish(self) -> None:
        """The call is over."""
        self.phase = CallPhase.NONE
        self.memo = None
        self.deadline_ns = None

    def copy(self) -> Call:
        """For a fork."""
        other = Call()
        other.number, other.args = self.number, self.args
        return other


class Task:
    """One thread.

    Hot attributes: `call`, `memory`, `fds`, `group`, `kernel`, `attention`.
    `attention` is True when the run loop has to look before the task returns to user mode (signals, stops, exits).
    """

    __slots__ = (
        "__weakref__",
        "arch",
        "attention",
        "call",
        "clear_child_tid",
        "context",
        "credentials",
        "deadline_ns",
        "default_timer_slack_ns",
        "exit_status",
        "fault",
        "fds",
        "fs",
        "group",
        "hold",
        "inject",
        "interrupt_call",
        "ioprio",
        "kernel",
        "last_registers",
        "last_trace",
        "memory",
        "mempolicy",
        "name",
        "nice",
        "pdeathsig",
        "personality",
        "preempted",
        "quantum_end",
        "queued",
        "reset_on_fork",
        "robust_list",
        "rseq",
        "rseq_length",
        "rseq_signature",
        "scheduling",
        "seccomp",
        "signals",
        "skip_breakpoint",
        "space",
        "special",
        "state",
        "stepping",
        "stop_info",
        "system_ns",
        "timer",
        "timer_slack_ns",
        "trace",
        "uid",
        "user_ns",
        "vfork_done",
        "vfork_parent",
        "voluntary_switches",
        "wait",
        "watch_calls",
    )

    def __init__(
        self,
        uid: TaskUid,
        group: ThreadGroup,
        kernel: Kernel,
        arch: Arch,
        space: AddressSpace,
        memory: UserMemory,
        fds: FdTable,
        fs: FsState,
        credentials: Credentials,
    ) -> None:
        self.uid = uid
        self.group = group
        self.kernel = kernel
        self.arch = arch
        self.space = space
        self.memory = memory
        self.fds = fds
        self.fs = fs
        self.credentials = credentials
        self.signals = TaskSignals()
        self.state = TaskState.NEW
        self.call = Call()
        self.name = ""
        self.attention = False
        self.context: Any = None  # cpu.Context while another task is on the CPU
        self.wait: Wait | None = None
        self.timer: Timer | None = None
        self.queued = False  # is in the run queue
        self.hold = False  # the debugger keeps it stopped
        self.stepping: StepRequest | None = None
        self.skip_breakpoint = -1  # run over the breakpoint at this address, if pc is there
        self.special = False  # the next run needs a look at skip_breakpoint or a tracer's step
        self.stop_info: Siginfo | None = None  # the signal the debugger was last told of
        self.interrupt_call = False  # a tracer wants the blocking call to end (PTRACE_INTERRUPT)
        self.fault: Fault | None = None  # the last CPU exception, for signal frames
        self.inject: Siginfo | None = None  # deliver this on resume, without asking the debugger again
        self.seccomp: Seccomp | None = None
        self.watch_calls = False  # somebody watches its system calls: take the slow path
        self.trace: Trace | None = None  # ptrace(2) by another task of the guest
        self.last_trace: Trace | None = None  # a zombie's that was traced by its parent
        self.exit_status = 0
        self.last_registers: Any = None  # RegisterFile, captured at exit
        self.vfork_done: WaitQueue | None = None  # of the child: its parent waits here
        self.vfork_parent: Task | None = None
        self.clear_child_tid = 0
        self.robust_list = 0
        self.rseq = 0
        self.rseq_length = 0
        self.rseq_signature = 0
        self.preempted = False  # its quantum ended: a restartable sequence it is in has to start again
        self.quantum_end = 0
        self.pdeathsig = 0
        self.personality = 0
        self.nice = 0
        self.mempolicy: Policy | None = None
        self.ioprio = 0  # IOPRIO_PRIO_VALUE(class, level), ioprio_set(2)
        self.scheduling: tuple[int, int] = (0, 0)  # policy, static priority
        self.reset_on_fork = False  # SCHED_RESET_ON_FORK: children are ordinary
        self.deadline_ns: tuple[int, int, int] = (0, 0, 0)  # of SCHED_DEADLINE: runtime, deadline, period
        self.timer_slack_ns = self.default_timer_slack_ns = 50_000
        self.user_ns = 0  # CPU time consumed, from the instruction clock
        self.system_ns = 0  # the same, by the number of system calls
        self.voluntary_switches = 0

    @property
    def tid(self) -> int:
        """The thread id: what gettid(2) says."""
        return self.uid.tid

    @property
    def pid(self) -> int:
        """The process id: what getpid(2) says."""
        return self.group.tgid

    @property
    def is_leader(self) -> bool:
        """Is this the thread whose tid is the process id?"""
        return self.uid.tid == self.group.tgid

    @property
    def alive(self) -> bool:
        """Has it not begun to exit?"""
        return self.state not in (TaskState.EXITING, TaskState.ZOMBIE, TaskState.DEAD)

    @property
    def signal_pending(self) -> bool:
        """Would a blocking call be interrupted now?  Linux' signal_pending()."""
        return self.attention and self.signals.deliverable(self.group.pending) != 0

    def __repr__(self) -> str:
        return f"<Task {self.group.tgid}.{self.uid.tid} {self.name!r} {self.state.value}>"


@dataclass(frozen=True, slots=True)
class Live:
    """The task runs, waits or is stopped; its registers can be read and written."""

    task: Task


@dataclass(frozen=True, slots=True)
class Exited:
    """The task has exited; `registers` are its last (None once it has been reaped)."""

    uid: TaskUid
    status: int
    registers: Any = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """There never was such a task, or too long ago."""


Lookup = Live | Exited | Unknown
UNKNOWN = Unknown()

PID_MAX = 32768
INIT_PID = 1
FIRST_PID = 1000
_HISTORY = 8192


class TaskRegistry:
    """Every task by identity and by tid; allocates tids (also for process groups that outlive their leader)."""

    def __init__(self) -> None:
        self._by_tid: dict[int, Task] = {}
        self._exited: OrderedDict[TaskUid, int] = OrderedDict()
        self._last_uid: dict[int, TaskUid] = {}
        self._serial = 0
        self._next_tid = FIRST_PID
        self.init: Task | None = None  # process 1: found by number, and no task of the guest's

    def allocate(self, in_use: frozenset[int] = frozenset(), tid: int | None = None) -> TaskUid:
        """A fresh identity; `in_use` are ids to avoid besides tids (process groups, sessions), `tid` a wanted one."""
        if tid is not None:
            self._serial += 1
            return TaskUid(tid, self._serial)
        for _ in range(PID_MAX):
            tid = self._next_tid
            self._next_tid = tid + 1 if tid + 1 < PID_MAX else FIRST_PID
            if tid not in self._by_tid and tid not in in_use:
                self._serial += 1
                return TaskUid(tid, self._serial)
        raise OverflowError("every tid is taken")

    @property
    def last_tid(self) -> int:
        """The tid allocated last (/proc/sys/kernel/ns_last_pid)."""
        return self._next_tid - 1

    def set_next(self, tid: int) -> None:
        """The next tid to try (tests of recycling; /proc/sys/kernel/ns_last_pid)."""
        self._next_tid = tid

    def add(self, task: Task) -> None:
        """Enter a new task."""
        self._by_tid[task.uid.tid] = task
        self._last_uid[task.uid.tid] = task.uid

    def rename(self, task: Task, tid: int) -> None:
        """exec by a non-leader: the task takes over the leader's tid, with a serial of its own."""
        old = task.uid
        if self._by_tid.get(old.tid) is task:
            del self._by_tid[old.tid]
        self._remember(old, 0)
        self._serial += 1
        task.uid = TaskUid(tid, self._serial)
        self._by_tid[tid] = task
        self._last_uid[tid] = task.uid

    def remove(self, task: Task) -> None:
        """Reap: the tid is free, the identity remembered."""
        if self._by_tid.get(task.uid.tid) is task:
            del self._by_tid[task.uid.tid]
        self._remember(task.uid, task.exit_status)

    def _remember(self, uid: TaskUid, status: int) -> None:
        self._exited[uid] = status
        if len(self._exited) > _HISTORY:
            forgotten, _ = self._exited.popitem(last=False)
            if self._last_uid.get(forgotten.tid) == forgotten:
                del self._last_uid[forgotten.tid]

    def look_up(self, uid: TaskUid) -> Lookup:
        """By identity: never another task that has the same tid now."""
        task = self._by_tid.get(uid.tid)
        if task is not None and task.uid == uid:
            return self._classify(task)
        if uid in self._exited:
            return Exited(uid, self._exited[uid])
        return UNKNOWN

    def look_up_tid(self, tid: int) -> Lookup:
        """By number, for system calls: the task that has it now, else the last that had it."""
        task = self.find(tid)
        if task is not None:
            return self._classify(task)
        uid = self._last_uid.get(tid)
        if uid is not None and uid in self._exited:
            return Exited(uid, self._exited[uid])
        return UNKNOWN

    @staticmethod
    def _classify(task: Task) -> Lookup:
        if task.state in (TaskState.ZOMBIE, TaskState.DEAD):
            return Exited(task.uid, task.exit_status, task.last_registers)
        return Live(task)

    def find(self, tid: int) -> Task | None:
        """The task entered under this tid, zombies included (kernel internals)."""
        return self._by_tid.get(tid) or (self.init if tid == INIT_PID else None)

    def __iter__(self) -> Iterator[Task]:
        """Live tasks and zombies, in order of creation."""
        return iter(sorted(self._by_tid.values(), key=lambda task: task.uid.serial))

    def __len__(self) -> int:
        return len(self._by_tid)
