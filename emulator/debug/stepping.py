"""Resuming and stopping: vCont's meaning (vCont c s r t, C S, Ctrl-C, D, k).

Rule: resuming only marks tasks (hold, stepping, inject); `run_slice` lets the machine run and turns its events into
stop events.  After a stop every debugged task is held, so that other processes may go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emulator.abi.signals import Siginfo, Signal
from emulator.debug.catch import CatchAbility
from emulator.debug.core import LastStop
from emulator.debug.signal_numbers import from_gdb, to_gdb
from emulator.kernel import events, signals
from emulator.kernel.events import StepRequest
from emulator.kernel.tasks import Task, TaskUid
from gdbstub import stop as gdb
from gdbstub.signals import Signal as GdbSignal
from gdbstub.stop import StopEvent, Stopped
from gdbstub.target import RUNNING, HostFd, ResumeAction, ResumeKind, Running, SliceResult, Stop, Waiting, action_for

if TYPE_CHECKING:
    from emulator.kernel.thread_group import ThreadGroup

SLICE_NS = 3_000_000
_FIRST_SLICE, _MAX_SLICE = 200_000, 4_000_000
_KILL_SLICES = 64
_MAX_LINGERING = 256
# A stopped thread keeps its turn, so that breakpoints do not change the interleaving; but a client that stops it again
# and again (stepping all the way, software watchpoints) must not starve the others.
_STOPS_OF_TURN = 50
_FORK_KINDS = {
    events.ForkKind.FORK: gdb.ForkKind.FORK,
    events.ForkKind.VFORK: gdb.ForkKind.VFORK,
    events.ForkKind.CLONE: gdb.ForkKind.CLONE,
}


class SteppingAbility(CatchAbility):
    """Target resume, run_slice, interrupt, kill, detach; NonStop."""

    slice_insns: int
    pending: deque[StopEvent]
    interrupted: bool
    deferred: dict[TaskUid, gdb.Reason]  # what happened to a stopped thread by another's doing
    last_task: Task | None  # who stopped last,
    turn_end: int  # in the turn that ends then,
    stops_of_turn: int  # for the how manieth time in it

    # -- resuming ------------------------------------------------------------------------------------------------

    def is_running(self) -> bool:
        """Whether a resume is under way."""
        return self.running or (self.settings.non_stop and bool(self.pending))

    def set_non_stop(self, enabled: bool) -> None:
        """QNonStop."""
        self.settings.non_stop = enabled

    def resume(self, actions: Sequence[ResumeAction]) -> None:
        """Mark every thread for what it is to do."""
        self.captured.clear()
        self._looked_up.clear()
        if len(self.lingering) > _MAX_LINGERING:
            self.remove_lingering()
        single = actions[0] if len(actions) == 1 else None
        non_stop = self.settings.non_stop
        resumed = 0
        for task in self.tasks():
            if non_stop and not task.hold:
                self._stop_running(task, actions)
                continue
            action = single if single is not None and single.pattern.tid < 0 and single.pattern.pid < 0 else None
            if action is None:
                action = action_for(actions, self.thread_id(task))
            if action is None or action.kind is ResumeKind.STOP:
                task.hold = True
                continue
            self._go(task, action)
            resumed += 1
        if resumed > 1 and self.stops_of_turn >= _STOPS_OF_TURN and self.last_task is not None:
            self.stops_of_turn = 0
            self.kernel.scheduler.go_last(self.last_task)
        self.running = True

    def _stop_running(self, task: Task, actions: Sequence[ResumeAction]) -> None:
        """Non-stop vCont;t of a running thread."""
        action = action_for(actions, self.thread_id(task))
        if action is not None and action.kind is ResumeKind.STOP:
            self.pending.append(self._stop_task(task, Stopped(self.thread_id(task), GdbSignal.SIG0, core=0)))

    def _go(self, task: Task, action: ResumeAction) -> None:
        """One stopped thread goes on."""
        stop = self.stops.pop(task.uid, None)
        deferred = self.deferred.pop(task.uid, None)
        if deferred is not None:
            self.pending.append(self._trap(task, deferred))
            return
        if action.signal:
            task.inject = self._signal_for(task, stop, action.signal)
            task.attention = True
        match action.kind:
            case ResumeKind.STEP:
                task.stepping = StepRequest()
            case ResumeKind.RANGE_STEP:
                task.stepping = StepRequest(action.start, action.end)
            case _:
                task.stepping = None
        task.hold = False

    @staticmethod
    def _signal_for(task: Task, stop: LastStop | None, signal: GdbSignal) -> Siginfo | None:
        signo = from_gdb(signal)
        if signo is None:
            return None
        if stop is not None and stop.info is not None and stop.info.signo == signo:
            return stop.info
        return Siginfo(signo, pid=task.group.tgid, uid=task.credentials.ruid)

    # -- running -------------------------------------------------------------------------------------------------

    def run_slice(self) -> SliceResult:
        """Run a few milliseconds and say how it ended."""
        while self.pending:
            reported = self.pending.popleft()
            if not isinstance(reported, Stopped) or self.is_alive(reported.thread):
                return self._report(reported)
        if self.interrupted:
            self.interrupted = False
            task = self._victim()
            if task is not None:
                return self._report(self._stop_task(task, Stopped(self.thread_id(task), GdbSignal.SIGINT, core=0)))
        clock = self.kernel.clock
        started = clock.monotonic_ns()
        while True:
            event = self.machine.run(self.slice_insns)
            if type(event) is events.StepDone:
                return self._report(self._trap(event.task, None))
            if type(event) is events.SliceDone:
                took = clock.monotonic_ns() - started
                if took < SLICE_NS // 4:
                    self.slice_insns = min(self.slice_insns * 2, _MAX_SLICE)
                elif took > SLICE_NS * 2:
                    self.slice_insns = max(self.slice_insns // 2, _FIRST_SLICE // 10)
                if took >= SLICE_NS // 2:
                    return RUNNING
                continue
            if type(event) is events.Idle:
                if self.running and not any(not task.hold for task in self.tasks()):
                    return self._report(gdb.NoResumed())
                return Waiting(tuple(HostFd(fd, bits) for fd, bits in event.host_fds), event.deadline_ns)
            if type(event) is events.AllExited:
                self.running = False
                return self._report(gdb.NoResumed())
            if type(event) is events.Interrupted:
                return RUNNING
            outcome = self._stop_event(event)
            if outcome is not None:
                return self._report(outcome)
            if clock.monotonic_ns() - started >= SLICE_NS:
                return RUNNING

    def run_beside(self) -> Running | Waiting | None:
        """A slice for processes that are not debugged, while the debugged ones are stopped."""
        if not any(group.tasks and not self.traces(group) for group in self.kernel.groups.values()):
            return None
        event = self.machine.run(self.slice_insns)
        if type(event) is events.Idle:
            return Waiting(tuple(HostFd(fd, bits) for fd, bits in event.host_fds), event.deadline_ns)
        if type(event) is events.AllExited:
            return None
        if type(event) is not events.SliceDone:
            outcome = self._stop_event(event)
            if outcome is not None:
                self.pending.append(outcome)
        return RUNNING

    def _report(self, event: StopEvent) -> Stop:
        """Stop the world (all-stop) and hand the event out."""
        if self.settings.non_stop:
            self.running = any(not task.hold for task in self.tasks())
            return Stop((event,))
        self.running = False
        for task in self.tasks():
            task.hold = True
            task.stepping = None
        if self.kernel.advice:
            console = tuple(text.encode(errors="replace") for text in self.kernel.advice)
            self.kernel.advice.clear()
            return Stop((event,), console)
        return Stop((event,))

    def _stop_task(self, task: Task, event: Stopped, info: Siginfo | None = None) -> Stopped:
        task.hold = True
        task.stepping = None
        self.stops_of_turn = (
            self.stops_of_turn + 1 if task is self.last_task and task.quantum_end <= self.turn_end else 1
        )
        self.last_task, self.turn_end = task, task.quantum_end
        self.note_stop(task, LastStop(event, info))
        return event

    def _victim(self) -> Task | None:
        """Whom a Ctrl-C stops: the thread that computes, else the one that stopped last, else the first."""
        current = self.kernel.current
        free = [task for task in self.tasks() if not task.hold]
        if current in free and current is not None and current.wait is None:
            return current
        return next((task for task in free if self.thread_id(task) == self.last_stopped), free[0] if free else None)

    def interrupt(self) -> None:
        """Ctrl-C: the next slice reports SIGINT."""
        self.interrupted = True

    # -- events --------------------------------------------------------------------------------------------------

    def _stop_event(self, event: events.Event) -> StopEvent | None:
        """What the client is told of an event; None: nothing."""
        match event:
            case events.StepDone(task):
                return self._trap(task, None)
            case events.BreakpointStop(task, address):
                return self._trap(task, self.breakpoint_reason(task, address))
            case events.WatchStop(task, hit):
                return self._trap(task, self.watch_reason(task, hit))
            case events.SignalStop(task, info):
                stopped = Stopped(self.thread_id(task), to_gdb(info.signo), core=0)
                return self._stop_task(task, stopped, info)
            case events.SyscallEntry(task, number):
                return self._trap(task, gdb.SyscallEntry(number))
            case events.SyscallReturn(task, number):
                return self._trap(task, gdb.SyscallReturn(number))
            case events.Forked(task, child, kind):
                return self._forked(task, child, kind)
            case events.VforkDone(task):
                if not self.settings.vfork_events or not task.alive:
                    return None
                if task.hold:  # it stands at its vfork event: as with ptrace, this comes once it has been resumed
                    self.deferred[task.uid] = gdb.VforkDone()
                    return None
                return self._trap(task, gdb.VforkDone())
            case events.Execed(task, path):
                return self._execed(task, path)
            case events.ThreadCreated(task, by):
                return self._thread_created(task, by)
            case events.ThreadExited(task, status):
                self.stops.pop(task.uid, None)
                if self.settings.thread_events or task.uid in self.settings.exit_threads:
                    self.settings.exit_threads.discard(task.uid)
                    return gdb.ThreadExitedEvent(self.thread_id(task), _exit_code(status))
                return None
            case events.GroupExited(group, status):
                return self._group_exited(group, status)
        return None

    def _trap(self, task: Task, reason: gdb.Reason | None) -> Stopped:
        return self._stop_task(task, Stopped(self.thread_id(task), GdbSignal.SIGTRAP, reason, core=0))

    def _forked(self, task: Task, child: Task, kind: events.ForkKind) -> StopEvent | None:
        process = self.process_of(task)
        if kind is events.ForkKind.CLONE:
            self.clones[child.group.tgid] = self.debugged[process]
            return self._thread_created(child, task)
        wanted = {
            events.ForkKind.FORK: self.settings.fork_events,
            events.ForkKind.VFORK: self.settings.vfork_events,
        }.get(kind, False)  # clone(2) of a process without SIGCHLD has no event in the protocol
        if not wanted:
            return None
        self.adopt(child.group)
        self.copy_points(process, child)
        caught = self.settings.caught.get(process)
        if caught is not None:
            self.settings.caught[child.group.tgid] = caught
        child.hold = True
        self.note_stop(child, LastStop(Stopped(self.thread_id(child), GdbSignal.SIG0, core=0)))
        return self._trap(task, gdb.Forked(_FORK_KINDS[kind], self.thread_id(child)))

    def _execed(self, task: Task, path: str) -> StopEvent | None:
        process = task.group.tgid
        if self.clones.pop(process, None) is not None:  # it has memory of its own now
            self.stops.pop(task.uid, None)
            return None
        self._targets.pop(process, None)
        self.drop_points(process, gone=True)
        for thread in [thread for thread in self.known if thread.pid == process]:
            self.stops.pop(self.known.pop(thread), None)
        if not self.settings.exec_events:
            return None
        return self._trap(task, gdb.Execed(path))

    def _thread_created(self, task: Task, by: Task) -> StopEvent | None:
        if by.uid in self.settings.clone_threads:
            self.settings.clone_threads.add(task.uid)
            task.hold = True
            self.note_stop(task, LastStop(Stopped(self.thread_id(task), GdbSignal.SIG0, core=0)))
            return self._trap(by, gdb.Forked(gdb.ForkKind.CLONE, self.thread_id(task)))
        if self.settings.thread_events:
            return self._trap(task, gdb.ThreadCreated())
        return None

    def _group_exited(self, group: ThreadGroup, status: int) -> StopEvent | None:
        if self.clones.pop(group.tgid, None) is not None:
            return None
        if group.tgid not in self.debugged:
            return None
        self._targets.pop(group.tgid, None)
        self.drop_points(group.tgid, gone=True)
        self.release_group(group.tgid)
        self.watch_calls()
        return exit_event(group.tgid, status)

    # -- ending --------------------------------------------------------------------------------------------------

    def kill(self, process: int) -> None:
        """SIGKILL, and wait until it is gone; nothing is reported."""
        if self._drop_exit(process):
            return
        group = self.group(process)
        self.drop_points(group.tgid)
        members = {task.group.tgid: task.group for task in self.tasks_of(group)}
        self._let_go(group)
        for member in members.values():
            signals.send_to_group(member, Siginfo(Signal.SIGKILL))
        self._run_until_gone(group)

    def _run_until_gone(self, group: ThreadGroup) -> None:
        """Nobody else moves meanwhile."""
        for _ in range(_KILL_SLICES):
            if not group.tasks:
                return
            event = self.machine.run(10_000)
            if isinstance(event, events.AllExited | events.Idle):
                return
            outcome = self._stop_event(event)
            if outcome is not None:
                self.pending.append(outcome)

    def detach(self, process: int) -> None:
        """Let it run on by itself, with the signal it stopped with if the client lets that through."""
        if self._drop_exit(process):
            return
        group = self.group(process)
        self.drop_points(group.tgid)
        program = self.settings.program_signals
        for task in self.tasks_of(group):
            stop = self.stops.get(task.uid)
            if stop is not None and stop.info is not None:
                signal = int(to_gdb(stop.info.signo))
                if stop.info.signo != Signal.SIGTRAP and (program is None or signal in program):
                    task.inject, task.attention = stop.info, True
        self._let_go(group)

    def _drop_exit(self, process: int) -> bool:
        """Is it gone already, and the client only not told yet?  Then it need not be."""
        gone = [e for e in self.pending if isinstance(e, gdb.ProcessExited | gdb.ProcessSignalled) and e.pid == process]
        for event in gone:
            self.pending.remove(event)
        return bool(gone)

    def _let_go(self, group: ThreadGroup) -> None:
        for task in self.tasks_of(group):
            task.hold = False
            task.stepping = None
        self.release_group(group.tgid)
        self.captured.clear()
        self.watch_calls()

    # -- sessions ------------------------------------------------------------------------------------------------

    def status(self) -> Sequence[StopEvent]:
        """The last event of every stopped thread, the last one reported first."""
        found: list[StopEvent] = []
        for task in self.tasks():
            stop = self.stops.get(task.uid)
            if self.settings.non_stop and not task.hold:
                continue
            thread = self.thread_id(task)
            event = stop.event if stop is not None else Stopped(thread, GdbSignal.SIG0, core=0)
            if thread == self.last_stopped:
                found.insert(0, event)
            else:
                found.append(event)
        return found

    def stop_at_start(self, task: Task) -> Stopped:
        """A new process waits before its first instruction."""
        self.adopt(task.group)
        return self._stop_task(task, Stopped(self.thread_id(task), GdbSignal.SIGTRAP, core=0))


def _exit_code(status: int) -> int:
    return status >> 8 & 0xFF if not status & 0x7F else status & 0x7F


def exit_event(pid: int, status: int) -> StopEvent:
    """W or X from a wait status."""
    if status & 0x7F:
        return gdb.ProcessSignalled(pid, to_gdb(status & 0x7F))
    return gdb.ProcessExited(pid, status >> 8 & 0xFF)
