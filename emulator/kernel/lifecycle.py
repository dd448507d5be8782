"""Birth and death of tasks and processes.

Rule: a task dies in one place (`exit_task`), in the kernel's order: what others wait for first (robust futexes,
clear_child_tid, vfork), then what it holds, then its entry in the registry.  Source: kernel/exit.c, wait(2), clone(2).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from emulator.abi.signals import NSIG, SIG_IGN, Sa, Siginfo, Signal
from emulator.errors import LinuxError, MemoryFault
from emulator.kernel import futex, ptrace, signals
from emulator.kernel.events import GroupExited, ThreadExited, VforkDone
from emulator.kernel.ipc import ipc_of
from emulator.kernel.tasks import TaskState

if TYPE_CHECKING:
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.tasks import Task
    from emulator.kernel.thread_group import ThreadGroup


def exit_group(kernel: Kernel, group: ThreadGroup, status: int) -> None:
    """Begin to end a process: every thread exits before it runs another instruction.  `status` is a wait status."""
    if group.exiting:
        return
    group.exiting = True
    group.exit_status = status
    group.stopped = False
    for task in list(group.tasks.values()):
        if task is kernel.current and task.state is TaskState.RUNNABLE and not task.queued:
            task.attention = True  # it is on the CPU: the run loop sees to it
        elif task.state is not TaskState.EXITING:
            exit_task(kernel, task, status)


def exit_task(kernel: Kernel, task: Task, status: int) -> None:
    """End one thread; the last one ends the process.  `status` is a wait status."""
    if not task.alive:
        return
    group = task.group
    task.state = TaskState.EXITING
    wait = task.wait
    if wait is not None and wait.interrupted is not None:
        with contextlib.suppress(LinuxError, MemoryFault):
            wait.interrupted(task)
    kernel.scheduler.remove(task)
    kernel.charge(task)
    kernel.capture_last_registers(task)
    task.exit_status = group.exit_status if group.exiting else status
    _release_futexes(kernel, task)
    ptrace.tracer_exits(kernel, task)
    release_vfork_parent(kernel, task)
    group.usage.user_ns += task.user_ns
    group.usage.system_ns += task.system_ns
    group.usage.switches += task.voluntary_switches
    if len(group.tasks) == 1 and task.space is not None:
        group.usage.peak_kib = max(group.usage.peak_kib, kernel.resident_kib(task.space))
    del group.tasks[task.tid]
    last = not group.tasks
    if last and not group.exiting:
        group.exit_status = task.exit_status
        group.exiting = True
    _drop_resources(kernel, task)
    if not last:
        _hand_children_over(group, task)
        _thread_gone(kernel, task)
    if last:
        _group_gone(kernel, group, task)


def _hand_children_over(group: ThreadGroup, task: Task) -> None:
    """Children of a thread become another thread's, and hear of it (PR_SET_PDEATHSIG)."""
    heir = next((other for other in group.tasks.values() if other.alive), None)
    for child in group.children.values():
        if child.forked_by is task:
            child.forked_by = heir
            _tell_death(child, group)


def _tell_death(child: ThreadGroup, parent: ThreadGroup) -> None:
    for task in child.tasks.values():
        if task.pdeathsig:
            signals.send_to_task(task, Siginfo(task.pdeathsig, 0, pid=parent.tgid))


def _thread_gone(kernel: Kernel, task: Task) -> None:
    group = task.group
    debugger = kernel.debugger
    if debugger is not None and debugger.traces(group) and debugger.wants_event(ThreadExited):
        kernel.events.append(ThreadExited(task, task.exit_status))
    task.state = TaskState.ZOMBIE
    if task.is_leader:
        return  # stays until the process is reaped
    if not ptrace.tracee_exited(kernel, task):
        reap_thread(kernel, task)


def reap_thread(kernel: Kernel, task: Task) -> None:
    """A thread that nobody waits for leaves the registry."""
    task.state = TaskState.DEAD
    kernel.tasks.remove(task)


def _group_gone(kernel: Kernel, group: ThreadGroup, last: Task) -> None:
    leader = group.leader
    last.state = TaskState.ZOMBIE
    if leader is not None and leader is not last:
        leader.exit_status = group.exit_status
        if not ptrace.tracee_exited(kernel, last):
            reap_thread(kernel, last)
    for timer in (*group.itimers.values(), *group.posix_timers.values()):
        timer.cancel()
    group.posix_timers.clear()
    held = _pgrps_it_held(group)
    ipc_of(kernel).semaphores.undo(group)
    _reparent_children(kernel, group)
    _session_leader_exits(kernel, group)
    _stopped_orphans(kernel, held)
    debugger = kernel.debugger
    if debugger is not None and debugger.traces(group) and debugger.wants_event(GroupExited):
        kernel.events.append(GroupExited(group, group.exit_status))
    group.exit_event.wake()
    if leader is not None and ptrace.tracee_exited(kernel, leader):
        return  # the tracer waits for it first, then the parent is told
    notify_parent(kernel, group)


def notify_parent(kernel: Kernel, group: ThreadGroup) -> None:
    """SIGCHLD (or clone's exit signal) to the parent; no parent, or one that ignores it, reaps at once."""
    parent = group.parent
    if parent is None:
        reap(kernel, group)
        return
    action = parent.sighand.actions[Signal.SIGCHLD]
    auto = group.exit_signal == Signal.SIGCHLD and (action.handler == SIG_IGN or bool(action.flags & Sa.NOCLDWAIT))
    if 0 < group.exit_signal <= NSIG and not (auto and action.handler == SIG_IGN):
        info = kernel.exit_info(group)
        if group.exit_signal != Signal.SIGCHLD:
            info = Siginfo(group.exit_signal, info.code, pid=info.pid, uid=info.uid, status=info.status)
        signals.send_to_group(parent, info)
    if auto:
        reap(kernel, group)
    parent.child_event.wake()


def reap(kernel: Kernel, group: ThreadGroup) -> None:
    """Forget a zombie: its pid is free again."""
    if group.reaped:
        return
    group.reaped = True
    parent = group.parent
    if parent is not None:
        parent.children.pop(group.tgid, None)
        parent.child_usage.add(group.usage)
        parent.child_usage.add(group.child_usage)
    if kernel.groups.get(group.tgid) is group:
        del kernel.groups[group.tgid]
    leader = group.leader
    if leader is not None:
        leader.state = TaskState.DEAD
        kernel.tasks.remove(leader)


def _reparent_children(kernel: Kernel, group: ThreadGroup) -> None:
    """Orphans go to the nearest living subreaper, else to init, which reaps by itself (prctl(2))."""
    adopter = group.parent
    while adopter is not None and (not adopter.subreaper or not adopter.tasks):
        adopter = adopter.parent
    for child in list(group.children.values()):
        child.parent = adopter
        if adopter is not None:
            adopter.children[child.tgid] = child
        child.forked_by = None
        _tell_death(child, group)
        if child.zombie:
            notify_parent(kernel, child)
    group.children.clear()


def _session_leader_exits(kernel: Kernel, group: ThreadGroup) -> None:
    """The terminal hangs up: SIGHUP and SIGCONT to its foreground process group."""
    session = group.session
    if session.sid != group.tgid or session.tty is None:
        return
    if session.foreground_pgid:
        kernel.send_to_pgrp(session.foreground_pgid, signals.kernel_info(Signal.SIGHUP))
        kernel.send_to_pgrp(session.foreground_pgid, signals.kernel_info(Signal.SIGCONT))
    session.drop_terminal()


def _pgrps_it_held(group: ThreadGroup) -> set[int]:
    """The process groups that may become orphaned by this exit: those it ties to their session (setpgid(2))."""
    held = {child.pgid for child in group.children.values() if _ties(group, child)}
    parent = group.parent
    if parent is not None and _ties(parent, group):
        held.add(group.pgid)
    return held


def _ties(parent: ThreadGroup, child: ThreadGroup) -> bool:
    return parent.pgid != child.pgid and parent.session is child.session


def _stopped_orphans(kernel: Kernel, pgids: set[int]) -> None:
    """A process group that becomes orphaned with a stopped member gets SIGHUP and SIGCONT."""
    for pgid in sorted(pgids):
        members = [member for member in kernel.members(pgid) if member.tasks]
        if any(member.stopped for member in members) and kernel.orphaned(pgid):
            for member in members:
                signals.send_to_group(member, signals.kernel_info(Signal.SIGHUP))
                signals.send_to_group(member, signals.kernel_info(Signal.SIGCONT))


def _release_futexes(kernel: Kernel, task: Task) -> None:
    """Robust list, then clear_child_tid (set_tid_address(2)); bad pointers are ignored."""
    futex.abandon(kernel, task)
    with contextlib.suppress(LinuxError, MemoryFault):
        futex.exit_robust_list(kernel, task)
    address = task.clear_child_tid
    if address and task.space is not None and task.space.users > 1:
        try:
            task.memory.write_u32(address, 0)
            futex.wake(kernel, futex.key_of(task, address, shared=True), 1)
        except (LinuxError, MemoryFault):
            pass
    task.clear_child_tid = 0


def release_vfork_parent(kernel: Kernel, task: Task) -> None:
    """exec or exit of a vfork child: its parent goes on."""
    queue = task.vfork_done
    if queue is None:
        return
    task.vfork_done = None
    parent = task.vfork_parent
    task.vfork_parent = None
    queue.wake()
    debugger = kernel.debugger
    if (
        parent is not None
        and debugger is not None
        and debugger.traces(parent.group)
        and debugger.wants_event(VforkDone)
    ):
        kernel.events.append(VforkDone(parent))


def _drop_resources(kernel: Kernel, task: Task) -> None:
    """Give up the shares in fds and memory; the last user of either frees it."""
    fds, space = task.fds, task.space
    if fds is not None:
        fds.leave()
    kernel.forget_context(task)
    if space is not None:
        space.release()
