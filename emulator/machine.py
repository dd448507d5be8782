"""The one run loop: why the CPU came back, and what Linux makes of it.

Rule: `Machine.run` runs at most a slice of instructions and returns why it came back as a typed value; nothing in it
waits.  Nothing a guest does leaves here as a Python exception.
A system call without onlookers is made by the CPU's `serve`: registers, table, handler, result register.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.signals import TRAP_TRACE, Siginfo, Signal
from emulator.cpu.exits import Exit, Simple, Syscall
from emulator.errors import LinuxError, MemoryFault
from emulator.kernel import ptrace, seccomp, signals
from emulator.kernel.delivery import RESTARTS, return_to_user
from emulator.kernel.events import (
    AllExited,
    Event,
    Idle,
    Interrupted,
    SliceDone,
    StepDone,
    SyscallEntry,
    SyscallReturn,
)
from emulator.kernel.exceptions import Exceptions
from emulator.kernel.futex import Waiter
from emulator.kernel.scheduler import LONG_TURN_INSNS, QUANTUM_INSNS
from emulator.kernel.tasks import CallPhase, Control, Task, TaskState
from emulator.kernel.waits import Block, Wait
from emulator.serving import what_serve_needs
from emulator.syscalls.registry import Table, table_for

if TYPE_CHECKING:
    from emulator.kernel.kernel import Kernel

log = logging.getLogger("emulator.machine")

_USER_MODE, _RUNNING = CallPhase.NONE, CallPhase.RUNNING
HOST_POLL_INSNS = 20_000  # look at host fds at least this often while somebody computes
PATIENCE = 100_000  # TLB fills, or a twentieth of it in calls: a slice of fresh pages or of calls ends in time too
SOFT_INSNS = 4096  # a block is shorter
CALL_INSNS = 1000  # what a system call takes of the caller's turn: about as long as that many instructions


class Machine:
    """A kernel and the loop that runs it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.cpu = kernel.cpu
        arch = kernel.arch
        self.table: Table = table_for(arch.syscalls, arch.bits)
        top = 1 << arch.bits
        self._mask = top - 1
        self._errors = {errno: top - number for errno, number in arch.errno.items()}
        self.cpu.core.serve_for(what_serve_needs(kernel, self.table.entries, self._errors, CALL_INSNS))
        self._react = Exceptions(kernel).react
        self._interrupt = False
        self._unknown_logged: set[int] = set()
        self._next_host_poll = 0

    # -- what callers use ------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Make `run` return Interrupted soon; may be called from a signal handler or another thread."""
        self._interrupt = True
        self.cpu.request_stop()

    def run(self, slice_insns: int) -> Event:
        """Run at most `slice_insns` instructions, or until something happens."""
        kernel, core = self.kernel, self.cpu.core
        scheduler, clock, events = kernel.scheduler, kernel.clock, kernel.events
        end = core.clock + slice_insns
        core.patience = PATIENCE
        while True:
            if events:
                return events.popleft()
            if self._interrupt:
                self._interrupt = False
                return Interrupted()
            if not core.patience:
                return SliceDone()
            if clock.pending:
                clock.run_due()
            now = core.clock
            if now >= self._next_host_poll and scheduler.host_waits:
                self._poll_host()
            task = scheduler.next()
            if task is None:
                if scheduler.host_waits and self._poll_host():
                    continue
                if events:
                    continue
                return self._nobody_runs()
            if now >= end:
                scheduler.put_back(task)
                return SliceDone()
            if task.quantum_end <= now:
                # From the exact end of the last turn, if it was just passed: a soft end must not move the next one.
                last = task.quantum_end
                task.quantum_end = (last if now - last <= SOFT_INSNS else now) + scheduler.quantum()
            elif scheduler.queue and task.quantum_end - now > LONG_TURN_INSNS:
                task.quantum_end = now + QUANTUM_INSNS  # it was alone when its turn began
            kernel.load(task)
            try:
                task = self._turn(task, end)
            except Exception as error:
                task = kernel.current or task
                self._cannot_go_on(task, error)
            if task.state is TaskState.RUNNABLE and not task.queued:
                if core.clock < task.quantum_end:
                    scheduler.put_back(task)
                else:
                    if task.rseq and scheduler.contended:
                        task.preempted = task.attention = True
                    scheduler.turn_over(task)

    @staticmethod
    def _cannot_go_on(task: Task, error: Exception) -> None:
        """No frame for a page, the CPU stands before the access; or a fault of ours: the process ends, not the machine.

        SIGKILL is what the kernel's OOM killer sends (pagefault_out_of_memory), and what an oops comes to.
        """
        if not (isinstance(error, LinuxError) and error.errno is E.ENOMEM):
            if task.group.exiting:
                raise error  # it cannot even be ended
            log.error("while %r ran", task, exc_info=error)
        signals.send_to_group(task.group, signals.kernel_info(Signal.SIGKILL))

    def _nobody_runs(self) -> Event:
        kernel = self.kernel
        if not any(group.tasks for group in kernel.groups.values()):
            return AllExited(kernel.first_status)
        return Idle(kernel.scheduler.host_waits.interest, kernel.clock.next_deadline_ns())

    def wait(self, idle: Idle) -> None:
        """Sleep until `idle` is over, for callers that have nothing else to do (--run)."""
        timeout = None
        if idle.deadline_ns is not None:
            timeout = max(0, -(-(idle.deadline_ns - self.kernel.clock.monotonic_ns()) // 1_000_000))
        self.kernel.host.poll_many(idle.host_fds, timeout)

    def _poll_host(self) -> bool:
        """Wake the tasks whose host fds are ready."""
        scheduler = self.kernel.scheduler
        self._next_host_poll = self.cpu.clock + HOST_POLL_INSNS
        ready = scheduler.host_waits.ready()
        for task in ready:
            scheduler.wake(task)
        return bool(ready) or scheduler.host_waits.notified

    # -- one task's turn -------------------------------------------------------------------------------------------

    def _turn(self, task: Task, end: int) -> Task:
        """Run the task, which is on the CPU, until its turn is over, or that of one it handed the CPU to: which."""
        kernel = self.kernel
        if task.call.phase is not _USER_MODE and not self._go_on(task):
            return task
        core, serve, events = self.cpu.core, self.cpu.serve, kernel.events
        while True:
            if task.attention and not return_to_user(kernel, task):
                return task
            if task.stepping is not None or task.special:
                if events or not self._special_run(task, min(end, task.quantum_end)):
                    return task
                continue
            if kernel.watch_calls:
                reason = self.cpu.run(min(end, task.quantum_end), False, not kernel.scheduler.queue)
            else:
                reason = serve(task, end)
                task = core.serving
            if type(reason) is Wait:
                if not self._block(task, reason):
                    return task
            elif type(reason) is Syscall:
                if not self._watched_or_unknown(task, reason):
                    return task
            elif isinstance(reason, Exception):
                if not self._failed(task, reason):
                    return task
            elif reason is not Simple.SERVED:
                if reason is Simple.BUDGET or not self._react(task, reason):
                    return task
                continue
            elif kernel.stored is not None:
                kernel.stored()
            if events:
                return task

    def _watched_or_unknown(self, task: Task, reason: Syscall) -> bool:
        """A system call that is not simply made; False if the turn is over."""
        call = task.call
        call.number, call.args = reason
        task.quantum_end -= CALL_INSNS
        if self.kernel.watch_calls or task.watch_calls:
            call.phase = CallPhase.ENTERED
            return self._advance(task)
        self.cpu.set_syscall_result(self._unknown(task))
        return True

    def _go_on(self, task: Task) -> bool:
        """Take up the call the task was in; the plain case of a blocked one nobody watches is short."""
        call, kernel = task.call, self.kernel
        if (
            call.phase is not _RUNNING
            or kernel.watch_calls
            or task.watch_calls
            or task.stepping is not None
            or task.trace is not None
            or task.group.exiting
        ):
            return self._advance(task)
        memo = call.memo
        if type(memo) is Waiter and memo.woken and not task.attention:
            self.cpu.set_syscall_result(memo.index)  # what the handler would say: a futex wait that was woken
        else:
            entry = self.table.entries.get(call.number)
            try:
                result = self._unknown(task) if entry is None else entry(task, call.args) or 0
                if isinstance(result, Wait):
                    if not self._block(task, result):
                        return False
                else:
                    self.cpu.set_syscall_result(result & self._mask)
            except Exception as error:
                if not self._failed(task, error):
                    return False
        call.phase = _USER_MODE
        call.memo = call.deadline_ns = None
        if kernel.stored is not None:
            kernel.stored()
        return not kernel.events

    def _special_run(self, task: Task, limit: int) -> bool:
        """Run with a step request, or over a breakpoint; False if the task's turn is over."""
        cpu, kernel, arch = self.cpu, self.kernel, self.kernel.arch
        pc = cpu.read(arch.pc)
        skip = task.skip_breakpoint == pc
        task.skip_breakpoint = -1
        trace = task.trace
        step = task.stepping
        reason: Exit
        if step is None and not (trace is not None and trace.single_step):
            task.special = False
            reason = cpu.run(limit, skip)
        elif step is not None and step.is_range:
            if skip:
                reason = cpu.step(1)
                if reason is Simple.BUDGET:
                    pc = cpu.read(arch.pc)
                    reason = Simple.BUDGET if step.start <= pc < step.end else Simple.RANGE_DONE
                    if reason is Simple.BUDGET:
                        reason = cpu.step_range(step.start, step.end, limit)
            else:
                reason = cpu.step_range(step.start, step.end, limit)
        else:
            reason = cpu.step(1)
            if reason is Simple.BUDGET:
                self._stepped(task)
                return False
        if reason is Simple.RANGE_DONE:
            self._stepped(task)
            return False
        if reason is Simple.BUDGET:
            return False
        if type(reason) is Syscall:
            task.call.number, task.call.args = reason
            task.call.phase = CallPhase.ENTERED
            task.quantum_end -= CALL_INSNS
            return self._advance(task) and not kernel.events
        return self._react(task, reason)

    def _stepped(self, task: Task) -> None:
        """The instruction is done: tell whoever asked for it."""
        trace = task.trace
        if trace is not None and trace.single_step:
            trace.single_step = False
            task.special = task.skip_breakpoint >= 0
            pc = self.cpu.read(task.arch.pc)
            signals.force(task, Siginfo(Signal.SIGTRAP, TRAP_TRACE, addr=pc))
        if task.stepping is not None:
            task.stepping = None
            self.kernel.events.append(StepDone(task))

    def _call_stepped(self, task: Task) -> bool:
        """A system call has returned: that was the instruction a step request asked for; False if so."""
        step, trace = task.stepping, task.trace
        if trace is not None and trace.single_step:
            self._stepped(task)
            return True  # the pending SIGTRAP stops it
        if step is None:
            return True
        if step.is_range and step.start <= self.cpu.read(task.arch.pc) < step.end:
            return True
        self._stepped(task)
        return False

    # -- system calls ----------------------------------------------------------------------------------------------

    def _advance(self, task: Task) -> bool:
        """Take a call that is watched, blocked or stopped through its phases; True if user mode is next."""
        kernel, call, cpu = self.kernel, task.call, self.cpu
        convention = task.arch.convention
        if task.group.exiting:
            return return_to_user(kernel, task)
        while True:
            match call.phase:
                case CallPhase.ENTERED:
                    call.phase = CallPhase.ENTRY_TRACED
                    if task.trace is not None and task.trace.stops_at_calls:
                        if convention.result != convention.args[0]:
                            cpu.set_syscall_result(self._errors[E.ENOSYS])
                        ptrace.syscall_stop(kernel, task, entry=True)
                        return False
                case CallPhase.ENTRY_TRACED:
                    call.phase = CallPhase.ENTRY_SEEN
                    debugger = kernel.debugger
                    if (
                        debugger is not None
                        and debugger.traces(task.group)
                        and debugger.wants_syscall(task, call.number)
                    ):
                        if convention.result != convention.args[0]:
                            cpu.set_syscall_result(self._errors[E.ENOSYS])
                        kernel.events.append(SyscallEntry(task, call.number))
                        return False
                case CallPhase.ENTRY_SEEN:
                    call.phase = CallPhase.RUNNING
                    if kernel.watch_calls or task.watch_calls:
                        self._read_call(task)
                    if kernel.strace is not None:
                        kernel.strace.entry(task)
                    if task.seccomp is not None and not self._judged(task, again=False):
                        return False
                case CallPhase.SECCOMP_TRACED:
                    call.phase = CallPhase.RUNNING
                    self._read_call(task)
                    if not self._judged(task, again=True):
                        return False
                case CallPhase.RUNNING:
                    if not self._execute(task):
                        return False
                    if call.phase is CallPhase.RUNNING:
                        call.phase = CallPhase.RETURNED
                case CallPhase.RETURNED:
                    call.phase = CallPhase.EXIT_TRACED
                    for callback in tuple(kernel.after_calls.values()):
                        callback()
                    if kernel.stored is not None:
                        kernel.stored()
                    if kernel.strace is not None:
                        kernel.strace.leave(task, cpu.read(convention.result))
                    if not task.alive:
                        return False
                    if task.state is TaskState.STOPPED:  # a ptrace event stop comes first
                        call.phase = CallPhase.RETURNED_QUIET
                        return False
                case CallPhase.RETURNED_QUIET:
                    call.phase = CallPhase.EXIT_TRACED
                case CallPhase.EXIT_TRACED:
                    call.phase = CallPhase.EXIT_SEEN
                    if task.trace is not None and task.trace.stops_at_calls:
                        if not call.check_restart:
                            self._show_call(task)
                        ptrace.syscall_stop(kernel, task, entry=False)
                        return False
                case CallPhase.EXIT_SEEN:
                    call.phase = CallPhase.DONE
                    debugger = kernel.debugger
                    if (
                        kernel.watch_calls
                        and debugger is not None
                        and debugger.traces(task.group)
                        and debugger.wants_syscall(task, call.number)
                    ):
                        kernel.events.append(SyscallReturn(task, call.number))
                        return False
                case CallPhase.DONE | CallPhase.NONE:
                    call.finish()
                    return self._call_stepped(task) and not kernel.events

    def _judged(self, task: Task, *, again: bool) -> bool:
        """Let seccomp(2) decide about a call; False if the task does not go on now."""
        match seccomp.judge(self.kernel, task, self._errors, again=again):
            case seccomp.Verdict.SKIP:
                task.call.phase = CallPhase.RETURNED
            case seccomp.Verdict.STOPPED:
                task.call.phase = CallPhase.SECCOMP_TRACED
                return False
            case seccomp.Verdict.GONE:
                return False
        return True

    def _show_call(self, task: Task) -> None:
        """Let the registers say which call the task is in (x86: orig_rax)."""
        saved = task.arch.convention.saved
        if saved:
            self.cpu.write(saved, task.call.number)

    def _read_call(self, task: Task) -> None:
        """A tracer or debugger may have changed number or arguments at the entry stop: read them again."""
        cpu, convention, call = self.cpu, task.arch.convention, task.call
        number = cpu.read(convention.saved or convention.number)
        sign = 1 << (task.arch.bits - 1)
        call.number = (number ^ sign) - sign if number >= sign else number
        if convention.result != convention.args[0] or not call.memo:
            call.args = tuple(cpu.read(name) for name in convention.args)

    def _execute(self, task: Task) -> bool:
        """Run the handler once; False if the task blocked or is gone."""
        call, cpu = task.call, self.cpu
        if call.number < 0:  # a tracer cancelled it; the result register stays
            return True
        entry = self.table.entries.get(call.number)
        if entry is None:
            cpu.set_syscall_result(self._unknown(task))
            return True
        try:
            result = entry(task, call.args) or 0
            if isinstance(result, Wait):
                return self._block(task, result)
            cpu.set_syscall_result(result & self._mask)
        except Exception as error:
            return self._failed(task, error)
        return True

    def _failed(self, task: Task, error: Exception) -> bool:
        """A handler raised: write the errno, block the task, or note that it is gone; False ends its turn."""
        call, kernel = task.call, self.kernel
        if type(error) is Block:  # the commonest first
            return self._block(task, error.wait)
        match error:
            case LinuxError(errno=errno):
                self.cpu.set_syscall_result(self._errors[errno])
                if errno in RESTARTS:
                    call.check_restart = True
                    task.attention = True
            case Control():
                if not task.alive:
                    return False
                kernel.load(task)
            case MemoryFault():
                self.cpu.set_syscall_result(self._errors[E.EFAULT])
            case _:
                log.exception("%s%s in %r", self.table.name(call.number), call.args, task, exc_info=error)
                if not task.alive:
                    return False
                self.cpu.set_syscall_result(self._errors[E.EIO])
        if call.phase is CallPhase.NONE:
            call.memo = call.deadline_ns = None
        return True

    def _block(self, task: Task, wait: Wait) -> bool:
        """The handler cannot go on: block, unless a signal ends the call right away."""
        call = task.call
        if task.attention and self._interrupted(task, wait):
            return True
        self.cpu.set_syscall_result(self._errors[wait.restart])
        if call.phase is CallPhase.NONE:
            call.phase = CallPhase.RUNNING
        if task.state is TaskState.RUNNABLE:
            self.kernel.scheduler.block(task, wait)
        return False

    def _interrupted(self, task: Task, wait: Wait) -> bool:
        """End a call that would block because a signal is pending; False if none is."""
        if not wait.interruptible and not task.group.exiting:
            return False
        if not task.group.exiting and not task.interrupt_call and not task.signals.deliverable(task.group.pending):
            return False
        task.interrupt_call = False
        result: int | None = wait.partial or None
        if wait.interrupted is not None:
            try:
                result = wait.interrupted(task)
            except LinuxError as error:
                result = self._errors[error.errno]
        if result is not None:
            self.cpu.set_syscall_result(result & self._mask)
        else:
            self.cpu.set_syscall_result(self._errors[wait.restart])
            task.call.check_restart = True
        if task.call.phase is CallPhase.NONE:
            task.call.memo = task.call.deadline_ns = None
        return True

    def _unknown(self, task: Task) -> int:
        """ENOSYS, and one log line a number."""
        number = task.call.number
        if number not in self._unknown_logged:
            self._unknown_logged.add(number)
            log.warning("system call %s is not there: ENOSYS", self.table.name(number))
        return self._errors[E.ENOSYS]
