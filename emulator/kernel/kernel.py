"""The kernel: everything that is there once.

Rule: objects reach each other through the `Kernel` they belong to; there are no globals, so two machines can live in
one Python process.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from emulator.abi.memory import PAGE_SIZE
from emulator.abi.signals import (
    CLD_CONTINUED,
    CLD_DUMPED,
    CLD_EXITED,
    CLD_KILLED,
    CLD_STOPPED,
    SIG_IGN,
    TRAP_TRACE,
    Sa,
    Siginfo,
    Signal,
)
from emulator.kernel import lifecycle, ptrace, signals
from emulator.kernel.clock import Clock
from emulator.kernel.futex import Futexes
from emulator.kernel.scheduler import Scheduler
from emulator.kernel.sysctl import Sysctls
from emulator.kernel.tasks import FIRST_PID, INIT_PID, CallPhase, Task, TaskRegistry, TaskState
from emulator.kernel.thread_group import Session, ThreadGroup, Usage
from emulator.kernel.user_memory import UserMemory
from emulator.kernel.vfs import Vfs

if TYPE_CHECKING:
    from emulator.arch.model import Arch
    from emulator.kernel.address_space import AddressSpace
    from emulator.kernel.credentials import Credentials
    from emulator.kernel.events import DebuggerPolicy, Event
    from emulator.kernel.host import Host
    from emulator.kernel.paths import Walker

    # Owned by other helpers; typed as soon as they land.
    Cpu = Any
    Arena = Any

log = logging.getLogger("emulator.kernel")

INSN_NS = 3  # about what an instruction takes here
CALL_NS = 1000  # and a system call
TICK_NS = 10_000_000  # USER_HZ
TOTAL_MEMORY = 8 << 30  # what sysinfo says when there is no --memory


@dataclass(slots=True)
class Config:
    """What the command line decides."""

    root: str = "/"  # host directory that is the guest's /
    cwd: str = "/"  # guest path
    net: str = "host"  # host | loopback | none
    memory_limit: int | None = None  # bytes of guest frames
    seed: int | None = None
    aslr: bool = False
    hostname: str | None = None
    own_mounts: bool = False  # a mount namespace of the emulator's own, where root can have one
    hooks: str = "auto"  # c | python | auto
    library_path: tuple[str, ...] = field(default_factory=tuple)  # -L: sysroots to look programs' interpreters up in


class Kernel:
    """One Linux machine."""

    def __init__(self, arch: Arch, config: Config, host: Host, cpu: Cpu, arena: Arena) -> None:
        self.arch = arch
        self.config: Config = config
        self.host = host
        self.cpu = cpu
        self._core = cpu.core
        self.arena = arena
        self.clock = Clock(host)
        self.sysctls = Sysctls(host)
        self.vfs = Vfs(host, config.root, config.library_path[0] if config.library_path else "")
        self.scheduler = Scheduler(self.clock, config.seed)
        self.tasks = TaskRegistry()
        self.groups: dict[int, ThreadGroup] = {}
        self.init_session = Session(FIRST_PID - 1)  # of the shell that the first process is a job of
        self.events: deque[Event] = deque()
        self.debugger: DebuggerPolicy | None = None
        self.current: Task | None = None  # whose context the CPU holds
        self._loaded_at = 0
        self._calls_at = 0
        self._host_identity: Credentials | None = None  # whose file permissions the host applies now
        self.first_group: ThreadGroup | None = None
        self.watch_calls = False  # the debugger catches calls, or --strace: every call takes the slow path
        self.hostname: str = config.hostname or host.hostname()  # the host's /etc/hosts knows this one
        self.domainname: str = "(none)"
        self.stored: Callable[[], None] | None = None  # run after a call that stored into what the debugger watches
        self.after_calls: dict[str, Callable[[], None]] = {}  # run after every call while there are any
        self.strace: Any = None  # a tracer with entry(task), leave(task, result): --strace
        self.futexes = Futexes()
        self.advice: list[str] = []  # for the debugger's user, at the next stop
        self.extensions: dict[str, Any] = {}  # one slot per subsystem that keeps machine-wide state (futexes, shm, ...)

    @property
    def walker(self) -> Walker:
        """Resolves guest paths (kernel/paths.py)."""
        return self.vfs.walker

    # -- the CPU -----------------------------------------------------------------------------------------------

    def load(self, task: Task) -> None:
        """Put a task's context on the CPU; free if it is there already."""
        current = self.current
        if current is not task:
            now, calls = self._core.clock, self._core.calls
            if current is None:
                self._core.switch(task.context, task.space.table)
            else:
                current.user_ns += (now - self._loaded_at) * INSN_NS
                current.system_ns += (calls - self._calls_at) * CALL_NS
                current.context = self._core.switch(task.context, task.space.table)
            self.current = task
            self._loaded_at, self._calls_at = now, calls
            if task.credentials is not self._host_identity:
                self.assume_identity(task)

    def assume_identity(self, task: Task) -> None:
        """Let the host check file permissions as the task's ids, not the emulator's; matters for root only."""
        credentials = self._host_identity = task.credentials
        self.host.become(credentials.fsuid, credentials.fsgid, credentials.groups, credentials.cap_effective)

    def vacate(self) -> None:
        """Take the current task off the CPU; its context is in its Task again."""
        current = self.current
        if current is not None:
            self.charge(current)
            current.context = self.cpu.save()
            self.current = None

    def charge(self, task: Task) -> None:
        """Book the CPU time a task has used, by the instruction clock and its calls: the same in every run."""
        if task is self.current:
            now, calls = self._core.clock, self._core.calls
            task.user_ns += (now - self._loaded_at) * INSN_NS
            task.system_ns += (calls - self._calls_at) * CALL_NS
            self._loaded_at, self._calls_at = now, calls

    def context_of(self, task: Task) -> Any:
        """An up-to-date copy of a task's context."""
        return self.cpu.save() if task is self.current else task.context

    def registers_of(self, task: Task) -> Any:
        """The whole register file of a live task."""
        return self.cpu.read_file() if task is self.current else self.cpu.registers_of(task.context)

    def write_registers(self, task: Task, file: Any) -> None:
        """Replace the whole register file of a stopped task; ends the wait of a blocked one, as ptrace does."""
        self.end_wait(task)
        if task is self.current:
            self.cpu.write_file(file)
        else:
            task.context = self.cpu.with_registers(task.context, file)
        task.call.check_restart = True
        task.attention = True

    def end_wait(self, task: Task) -> None:
        """Turn a blocked call into an interrupted one: its registers hold -ERESTART* already."""
        if task.call.phase is CallPhase.RUNNING:
            wait = task.wait
            if wait is not None and not wait.interruptible:
                return  # vfork(2): only the child's end is the end of it
            if wait is not None and wait.interrupted is not None:
                wait.interrupted(task)
            task.call.finish()
            self.scheduler.wake(task)
            task.call.check_restart = True
            task.attention = True

    def capture_last_registers(self, task: Task) -> None:
        """Keep the context of a dying task, for the debugger: its own, and nobody else's."""
        task.last_registers = self.context_of(task)

    def forget_context(self, task: Task) -> None:
        """The task will never run again."""
        if self.current is task:
            self.current = None
        task.context = None

    def singlestep_into_handler(self, task: Task) -> None:
        """A frame was pushed under a tracer's single step: it stops at the handler's first instruction."""
        trace = task.trace
        if trace is not None and trace.single_step:
            trace.single_step = False
            address = self.cpu.read(task.arch.pc)
            signals.force(task, Siginfo(Signal.SIGTRAP, TRAP_TRACE, addr=address))

    @property
    def first_status(self) -> int:
        """The wait status of the first process; 0 while it lives."""
        return self.first_group.exit_status if self.first_group is not None else 0

    def copy_context(self, task: Task, child: Task, *, stack: int, tls: int | None) -> None:
        """Give a new task its creator's registers, with result 0, its own stack and thread pointer."""
        cpu, arch = self.cpu, task.arch
        mine = cpu.save()
        cpu.set_syscall_result(0)
        if stack:
            cpu.write(arch.sp, stack)
        if tls is not None:
            cpu.write(arch.tls, tls)
        child.context = cpu.save()
        cpu.load(mine)

    def user_memory(self, space: AddressSpace) -> UserMemory:
        """Typed access to an address space."""
        return UserMemory(space.table, space, self.arch.byteorder, self.arch.bits)

    def thread_time(self, task: Task) -> int:
        """CPU time of a thread, ns."""
        self.charge(task)
        return task.user_ns + task.system_ns

    def usage_of(self, group: ThreadGroup) -> Usage:
        """What a process has used, exited threads included."""
        usage = Usage()
        usage.add(group.usage)
        for task in group.tasks.values():
            self.charge(task)
            usage.user_ns += task.user_ns
            usage.system_ns += task.system_ns
            usage.switches += task.voluntary_switches
        return usage

    def user_time(self, group: ThreadGroup) -> int:
        """CPU time of a process in user mode, ns."""
        return self.usage_of(group).user_ns

    def cpu_time(self, group: ThreadGroup) -> int:
        """CPU time of a process, ns."""
        usage = self.usage_of(group)
        return usage.user_ns + usage.system_ns

    def resident_kib(self, space: AddressSpace) -> int:
        """An estimate of the resident set: exact numbers cost a walk over the page table."""
        return int(min(space.pages.total * 4, self.arena.used_frames() * 4))

    def memory_bytes(self) -> tuple[int, int]:
        """(total, used) guest memory."""
        limit = self.config.memory_limit or TOTAL_MEMORY
        return limit, min(self.arena.used_frames() * PAGE_SIZE, limit)

    def advise(self, task: Task, text: str) -> None:
        """Tell the user what no errno or signal can say: on the debugger's console, or in the log."""
        if self.debugger is not None and self.debugger.traces(task.group):
            self.advice.append(f"{task.name}: {text}\n")
        else:
            log.error("%s (pid %d): %s", task.name, task.pid, text)

    # -- processes ---------------------------------------------------------------------------------------------

    def ids_in_use(self) -> frozenset[int]:
        """Process-group and session ids that live on without a process of that number."""
        return frozenset(group.pgid for group in self.groups.values()) | frozenset(
            group.sid for group in self.groups.values()
        )

    def members(self, pgid: int) -> Iterator[ThreadGroup]:
        """The processes of a process group."""
        return (group for group in list(self.groups.values()) if group.pgid == pgid)

    def send_to_pgrp(self, pgid: int, info: Siginfo) -> int:
        """Signal every process of a process group; how many there were."""
        count = 0
        for group in self.members(pgid):
            if not group.zombie:
                signals.send_to_group(group, info)
                count += 1
        return count

    def orphaned(self, pgid: int) -> bool:
        """Has no member a parent in another group of the same session? (setpgid(2), "orphaned process group")"""
        for group in self.members(pgid):
            if not group.tasks:
                continue
            parent = group.parent
            if group is self.first_group:
                return False  # its parent is outside: whoever started the emulator looks after it
            if parent is not None and parent.pgid != pgid and parent.session is group.session:
                return False
        return True

    # -- job control -------------------------------------------------------------------------------------------

    def stop_group(self, group: ThreadGroup, signo: int) -> None:
        """A stop signal takes its default action: no thread of the process runs until SIGCONT."""
        if group.stopped or group.exiting:
            return
        group.stopped = True
        group.stop_signal = signo
        group.stop_report = signo << 8 | 0x7F
        for task in list(group.tasks.values()):
            if task.trace is not None and task.state is not TaskState.STOPPED:
                if task is self.current and not task.queued and task.state is TaskState.RUNNABLE:
                    ptrace.group_stop(self, task, signo)
                else:
                    task.trace.group_stop = signo
                    self.scheduler.notify(task)
        self._tell_parent_of_job(group, CLD_STOPPED, signo)

    def kill_group(self, group: ThreadGroup) -> None:
        """SIGKILL: nothing and nobody stops it, init excepted."""
        if group.tgid != INIT_PID:
            lifecycle.exit_group(self, group, int(Signal.SIGKILL))

    def continue_group(self, group: ThreadGroup) -> None:
        """SIGCONT has been generated."""
        if not group.stopped:
            return
        group.stopped = False
        group.stop_report = 0xFFFF
        self._tell_parent_of_job(group, CLD_CONTINUED, Signal.SIGCONT)
        for task in list(group.tasks.values()):
            trace = task.trace
            if trace is not None and trace.seized:
                if trace.listening:
                    ptrace.event_trap(self, task)
                else:
                    trace.notify = True

    def _tell_parent_of_job(self, group: ThreadGroup, code: int, status: int) -> None:
        parent = group.parent
        if parent is None:
            return
        action = parent.sighand.actions[Signal.SIGCHLD]
        if not action.flags & Sa.NOCLDSTOP and action.handler != SIG_IGN:
            signals.send_to_group(parent, self.child_info(group, code, status))
        parent.child_event.wake()

    def child_info(self, group: ThreadGroup, code: int, status: int) -> Siginfo:
        """The siginfo of SIGCHLD."""
        uid = group.leader.credentials.ruid if group.leader is not None else 0
        user, system = group.usage.user_ns // TICK_NS, group.usage.system_ns // TICK_NS
        return Siginfo(Signal.SIGCHLD, code, pid=group.tgid, uid=uid, status=status, utime=user, stime=system)

    def exit_info(self, group: ThreadGroup) -> Siginfo:
        """The SIGCHLD of a process that has exited."""
        status = group.exit_status
        if status & 0x7F == 0:
            return self.child_info(group, CLD_EXITED, status >> 8 & 0xFF)
        return self.child_info(group, CLD_DUMPED if status & 0x80 else CLD_KILLED, status & 0x7F)

    # -- timers ------------------------------------------------------------------------------------------------

    def timer_signal_taken(self, group: ThreadGroup, info: Siginfo) -> Siginfo:
        """A POSIX timer's signal is being delivered: fill in its overrun count and rearm it."""
        timer = group.posix_timers.get(info.timer_id)
        if timer is None:
            return info
        return replace(info, overrun=timer.taken())
