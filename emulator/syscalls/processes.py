"""Processes: clone and its kin, execve, exit, wait, process groups and sessions.

Source: clone(2), fork(2), vfork(2), execve(2), exit_group(2), wait(2), setpgid(2), setsid(2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.signals import (
    CLD_CONTINUED,
    CLD_DUMPED,
    CLD_EXITED,
    CLD_KILLED,
    CLD_STOPPED,
    CLD_TRAPPED,
    NSIG,
    Siginfo,
    Signal,
)
from emulator.errors import LinuxError
from emulator.kernel import exec as loading
from emulator.kernel import futex, lifecycle, ptrace, signals
from emulator.kernel.events import Execed, Forked, ForkKind, ThreadCreated
from emulator.kernel.files.pidfd import PidfdDescription
from emulator.kernel.image import FatalExec, Program, rlimit_reader
from emulator.kernel.tasks import Gone, RegistersReplaced, Task, TaskState
from emulator.kernel.thread_group import RLIMIT_NPROC, Session, ThreadGroup, Usage
from emulator.kernel.timers import arm_cpu_limit
from emulator.kernel.waits import Block, Wait, WaitQueue
from emulator.syscalls.registry import Fd, Int, Ptr, Size, syscall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emulator.kernel.address_space import AddressSpace

CLONE_VM, CLONE_FS, CLONE_FILES, CLONE_SIGHAND = 0x100, 0x200, 0x400, 0x800
CLONE_PIDFD, CLONE_PTRACE, CLONE_VFORK, CLONE_PARENT = 0x1000, 0x2000, 0x4000, 0x8000
CLONE_THREAD, CLONE_NEWNS, CLONE_SYSVSEM, CLONE_SETTLS = 0x10000, 0x20000, 0x40000, 0x80000
CLONE_PARENT_SETTID, CLONE_CHILD_CLEARTID, CLONE_DETACHED = 0x100000, 0x200000, 0x400000
CLONE_UNTRACED, CLONE_CHILD_SETTID = 0x800000, 0x1000000
CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x2000000, 0x4000000, 0x8000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET, CLONE_IO = 0x20000000, 0x40000000, 0x80000000
CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CLONE_NEWTIME = 1 << 32, 1 << 33, 0x80
CSIGNAL = 0xFF
NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET


_UNSHARABLE = CLONE_THREAD | CLONE_FS | CLONE_SIGHAND | CLONE_VM | CLONE_FILES | CLONE_SYSVSEM


@dataclass(frozen=True, slots=True)
class CloneArgs:
    """struct clone_args of clone(2), as both calls fill it."""

    flags: int
    exit_signal: int = 0
    stack: int = 0  # the child's stack pointer; 0: the parent's
    tls: int = 0
    parent_tid: int = 0
    child_tid: int = 0
    pidfd: int = 0
    set_tid: tuple[int, ...] = ()


# -- making tasks ----------------------------------------------------------------------------------------------------


@syscall("fork")
def fork(t: Task) -> int:
    """fork(2)."""
    return _clone(t, CloneArgs(0, Signal.SIGCHLD))


@syscall("vfork")
def vfork(t: Task) -> int:
    """vfork(2)."""
    return _clone(t, CloneArgs(CLONE_VFORK | CLONE_VM, Signal.SIGCHLD))


@syscall("clone")
def clone(t: Task, a: Size, b: Size, c: Size, d: Size, e: Size) -> int:
    """clone(2); the order of its arguments is the ISA's."""
    given = dict(zip(t.arch.convention.clone_args, (a, b, c, d, e), strict=True))
    flags = given["flags"] & 0xFFFFFFFF
    return _clone(
        t,
        CloneArgs(
            flags & ~CSIGNAL,
            flags & CSIGNAL,
            given["stack"],
            given["tls"],
            given["parent_tid"],
            given["child_tid"],
            given["parent_tid"] if flags & CLONE_PIDFD else 0,
        ),
    )


@syscall("clone3")
def clone3(t: Task, address: Ptr, size: Size) -> int:
    """clone3(2)."""
    if t.call.memo is not None:
        return _vfork_wait(t)
    if size < 64:
        raise LinuxError(E.EINVAL)
    if size > 4096:
        raise LinuxError(E.E2BIG)
    raw = t.memory.read(address, size)
    if any(raw[88:]):
        raise LinuxError(E.E2BIG)
    raw = raw[:88].ljust(88, b"\0")
    words = t.memory.layout("Q" * 11).unpack(raw)
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, _ = words
    if flags & ~(0xFFFFFFFF & ~CSIGNAL | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP | CLONE_NEWTIME):
        raise LinuxError(E.EINVAL)
    if flags & CLONE_DETACHED or exit_signal > NSIG or flags & CLONE_INTO_CGROUP:
        raise LinuxError(E.EINVAL)
    if flags & (CLONE_THREAD | CLONE_PARENT) and exit_signal:
        raise LinuxError(E.EINVAL)
    if flags & CLONE_SIGHAND and flags & CLONE_CLEAR_SIGHAND:
        raise LinuxError(E.EINVAL)
    if bool(stack) != bool(stack_size):
        raise LinuxError(E.EINVAL)
    wanted: tuple[int, ...] = ()
    if set_tid_size:
        if not set_tid or set_tid_size > 32:
            raise LinuxError(E.EINVAL)
        wanted = t.memory.read_struct(set_tid, "i" * set_tid_size)
    elif set_tid:
        raise LinuxError(E.EINVAL)
    top = stack + stack_size if stack else 0
    return _clone(t, CloneArgs(flags, exit_signal, top, tls, parent_tid, child_tid, pidfd, wanted))


def _check(t: Task, args: CloneArgs) -> None:
    flags = args.flags
    if flags & (CLONE_NEWNS | CLONE_FS) == CLONE_NEWNS | CLONE_FS:
        raise LinuxError(E.EINVAL)
    if flags & (CLONE_NEWIPC | CLONE_SYSVSEM) == CLONE_NEWIPC | CLONE_SYSVSEM:
        raise LinuxError(E.EINVAL)
    if flags & CLONE_THREAD and not flags & CLONE_SIGHAND:
        raise LinuxError(E.EINVAL)
    if flags & CLONE_SIGHAND and not flags & CLONE_VM:
        raise LinuxError(E.EINVAL)
    if flags & CLONE_THREAD and flags & (CLONE_NEWUSER | CLONE_NEWPID):
        raise LinuxError(E.EINVAL)
    if flags & CLONE_PIDFD and flags & (CLONE_DETACHED | CLONE_THREAD):
        raise LinuxError(E.EINVAL)
    if flags & CLONE_PIDFD and flags & CLONE_PARENT_SETTID and args.pidfd == args.parent_tid:
        raise LinuxError(E.EINVAL)
    if flags & NAMESPACES:
        raise LinuxError(E.EPERM)  # this machine has one namespace of each kind
    limit = t.group.rlimits[RLIMIT_NPROC][0]
    if len(t.kernel.tasks) >= min(limit, 30000):
        raise LinuxError(E.EAGAIN)


def _clone(t: Task, args: CloneArgs) -> int:
    """kernel_clone(): make the child, tell whoever listens, and for vfork wait for it."""
    if t.call.memo is not None:
        return _vfork_wait(t)
    _check(t, args)
    kernel, flags = t.kernel, args.flags
    space = t.space
    if flags & CLONE_VM:
        space.users += 1
    else:
        space = t.space.fork()
    try:
        child = _new_task(t, args, space)
    except BaseException:
        space.release()
        raise
    kernel.copy_context(t, child, stack=args.stack, tls=args.tls if flags & CLONE_SETTLS else None)
    _write_ids(t, child, args)
    if flags & CLONE_PIDFD:
        fd = _make_pidfd(t, child)
        t.memory.write_u32(args.pidfd, fd)
    if flags & CLONE_VFORK:
        child.vfork_done = WaitQueue()
        child.vfork_parent = t
    _announce(t, child, flags, args.exit_signal)
    kernel.scheduler.start(child)
    if child.trace is not None:
        child.attention = True
    if flags & CLONE_VFORK:
        t.call.memo = (child, child.vfork_done)
        return _vfork_wait(t)
    return child.tid


def _make_pidfd(t: Task, child: Task) -> int:
    """CLONE_PIDFD."""
    return t.fds.allocate(PidfdDescription(t.kernel.host, child.group, 0), cloexec=True)


def _pid_of_pidfd(t: Task, fd: int) -> int:
    group = getattr(t.fds.get(fd), "group", None)
    if not isinstance(group, ThreadGroup):
        raise LinuxError(E.EBADF)
    return group.tgid


def _vfork_wait(t: Task) -> int:
    child, queue = t.call.memo
    if child.vfork_done is queue:
        raise Block(Wait("vfork", (queue,), interruptible=False, restart=E.ERESTARTNOINTR))
    ptrace.event_stop(t.kernel, t, ptrace.EVENT_VFORK_DONE, child.tid)
    return int(child.tid)


def _new_task(t: Task, args: CloneArgs, space: AddressSpace) -> Task:
    """copy_process(): everything but registers and announcements."""
    kernel, flags = t.kernel, args.flags
    try:
        uid = kernel.tasks.allocate(kernel.ids_in_use())
    except OverflowError:
        raise LinuxError(E.EAGAIN) from None
    group = t.group if flags & CLONE_THREAD else _new_group(t, uid.tid, args)
    child_space = t.space if flags & CLONE_VM else space
    memory = t.memory if flags & CLONE_VM else kernel.user_memory(child_space)
    fds = t.fds.share() if flags & CLONE_FILES else t.fds.fork()
    fs = t.fs.share() if flags & CLONE_FS else t.fs.fork()
    child = Task(uid, group, kernel, t.arch, child_space, memory, fds, fs, t.credentials)
    child.name = t.name
    child.signals.mask = t.signals.mask
    if t.signals.saved_mask is not None:
        child.signals.mask = t.signals.saved_mask
    if not flags & CLONE_VM or flags & CLONE_VFORK:
        child.signals.altstack = t.signals.altstack
    child.nice, child.scheduling = t.nice, t.scheduling
    child.personality, child.timer_slack_ns = t.personality, t.timer_slack_ns
    child.fault = t.fault
    if not flags & CLONE_VM:
        child.rseq, child.rseq_length, child.rseq_signature = t.rseq, t.rseq_length, t.rseq_signature
    if flags & CLONE_CHILD_CLEARTID:
        child.clear_child_tid = args.child_tid
    if not flags & CLONE_THREAD:
        group.leader = child
        if not flags & CLONE_VM:
            child_space.rlimit = rlimit_reader(group)
    group.tasks[uid.tid] = child
    kernel.tasks.add(child)
    return child


def _new_group(t: Task, tgid: int, args: CloneArgs) -> ThreadGroup:
    old = t.group
    parent = old.parent if args.flags & CLONE_PARENT else old
    sighand = old.sighand if args.flags & CLONE_SIGHAND else old.sighand.copy()
    if args.flags & CLONE_CLEAR_SIGHAND:
        sighand.reset_for_exec()
    group = ThreadGroup(tgid, parent, old.pgid, old.session, sighand)
    group.exit_signal = old.exit_signal if args.flags & CLONE_PARENT else args.exit_signal
    group.rlimits = type(old.rlimits)(old.rlimits)
    arm_cpu_limit(t.kernel, group)
    group.exe, group.argv, group.envp = old.exe, old.argv, old.envp
    group.start_ns = t.kernel.clock.monotonic_ns()
    group.dumpable = old.dumpable
    if parent is not None:
        parent.children[tgid] = group
    t.kernel.groups[tgid] = group
    return group


def _write_ids(t: Task, child: Task, args: CloneArgs) -> None:
    """CLONE_PARENT_SETTID and CLONE_CHILD_SETTID; bad pointers are ignored, as in the kernel."""
    for wanted, memory, address in (
        (CLONE_PARENT_SETTID, t.memory, args.parent_tid),
        (CLONE_CHILD_SETTID, child.memory, args.child_tid),
    ):
        if args.flags & wanted:
            try:
                memory.write_u32(address, child.tid)
            except LinuxError:
                continue


def _announce(t: Task, child: Task, flags: int, exit_signal: int) -> None:
    """Tell tracer and debugger; an asked-for tracer takes the child too (ptrace(2), PTRACE_O_TRACECLONE)."""
    kernel = t.kernel
    if flags & CLONE_VFORK:
        event, kind = ptrace.EVENT_VFORK, ForkKind.VFORK
    elif exit_signal != Signal.SIGCHLD or flags & CLONE_THREAD:
        event, kind = ptrace.EVENT_CLONE, ForkKind.CLONE
    else:
        event, kind = ptrace.EVENT_FORK, ForkKind.FORK
    trace = t.trace
    if trace is not None and not flags & CLONE_UNTRACED:
        wanted = bool(trace.options & ptrace.OPTION_OF_EVENT[event])
        if wanted or flags & CLONE_PTRACE:
            ptrace.attach(kernel, trace.tracer, child, seized=trace.seized, options=trace.options)
            ptrace.stop_new_child(kernel, child)
        if wanted:
            ptrace.event_stop(kernel, t, event, child.tid)
    debugger = kernel.debugger
    if debugger is None or not debugger.traces(t.group):
        return
    if flags & CLONE_THREAD:
        if debugger.wants_event(ThreadCreated):
            kernel.events.append(ThreadCreated(child, t))
    elif debugger.wants_event(Forked):
        kernel.events.append(Forked(t, child, kind))


@syscall("unshare")
def unshare(t: Task, flags: Size) -> int:
    """unshare(2): what fork would have copied; namespaces are refused."""
    if flags & ~(NAMESPACES | CLONE_NEWTIME | _UNSHARABLE):
        raise LinuxError(E.EINVAL)
    if flags & NAMESPACES:
        raise LinuxError(E.EPERM)
    if flags & CLONE_FS and t.fs.users > 1:
        t.fs.users -= 1
        t.fs = t.fs.fork()
    if flags & CLONE_FILES and t.fds.users > 1:
        mine = t.fds.fork()
        t.fds.leave()
        t.fds = mine
    if flags & (CLONE_VM | CLONE_SIGHAND | CLONE_THREAD) and len(t.group.tasks) > 1:
        raise LinuxError(E.EINVAL)
    return 0


@syscall("setns")
def setns(t: Task, fd: Fd, kind: Int) -> int:
    """setns(2): there is one namespace of each kind."""
    t.fds.get(fd)
    raise LinuxError(E.EPERM)


# -- exec ------------------------------------------------------------------------------------------------------------


@syscall("execve")
def execve(t: Task, path: Ptr, argv: Ptr, envp: Ptr) -> int:
    """execve(2)."""
    name = t.memory.read_cstring(path)
    return _exec(t, loading.prepare(t, name, lambda: loading.read_arguments(t, argv, envp)))


@syscall("execveat")
def execveat(t: Task, dirfd: Fd, path: Ptr, argv: Ptr, envp: Ptr, flags: Int) -> int:
    """execveat(2)."""
    name = t.memory.read_cstring(path)
    arguments = lambda: loading.read_arguments(t, argv, envp)  # noqa: E731
    return _exec(t, loading.prepare(t, name, arguments, dirfd=dirfd, flags=flags))


def _exec(t: Task, program: Program) -> int:
    """begin_new_exec(): from here on the old image is gone."""
    kernel = t.kernel
    former = t.tid
    _only_thread(t)
    _leave_old_image(t)
    try:
        loading.enter(t, program, kernel.cpu)
    except FatalExec:
        lifecycle.exit_group(kernel, t.group, Signal.SIGSEGV)
        lifecycle.exit_task(kernel, t, Signal.SIGSEGV)
        raise Gone from None
    t.signals.saved_mask = None
    t.fault = None
    t.rseq_signature = 0
    if t.credentials.keep_caps:
        t.credentials = replace(t.credentials, keep_caps=False)
    lifecycle.release_vfork_parent(kernel, t)
    _announce_exec(t, former)
    raise RegistersReplaced


def _only_thread(t: Task) -> None:
    """de_thread(): the caller becomes the process, under the leader's number."""
    kernel, group = t.kernel, t.group
    for other in list(group.tasks.values()):
        if other is not t:
            lifecycle.exit_task(kernel, other, 0)
    leader = group.leader
    if leader is not None and leader is not t:
        ptrace.detach(kernel, leader)
        lifecycle.reap_thread(kernel, leader)
        del group.tasks[t.tid]
        trace = t.trace
        if trace is not None:
            trace.tracer.group.tracees.pop(t.uid, None)
        kernel.tasks.rename(t, group.tgid)
        if trace is not None:
            trace.tracer.group.tracees[t.uid] = t
        group.tasks[group.tgid] = t
        group.leader = t


def _leave_old_image(t: Task) -> None:
    """What others wait for in the old memory, and what execve(2) stops sharing."""
    kernel, group = t.kernel, t.group
    try:
        futex.exit_robust_list(kernel, t)
        if t.clear_child_tid and t.space.users > 1:
            t.memory.write_u32(t.clear_child_tid, 0)
            futex.wake(kernel, futex.key_of(t, t.clear_child_tid, shared=True), 1)
    except LinuxError:
        pass
    if t.fds.users > 1:
        mine = t.fds.fork()
        t.fds.leave()
        t.fds = mine
    group.sighand = group.sighand.copy()


def _announce_exec(t: Task, former: int) -> None:
    kernel = t.kernel
    trace = t.trace
    if trace is not None and not ptrace.event_stop(kernel, t, ptrace.EVENT_EXEC, former) and not trace.seized:
        signals.send_to_task(t, Siginfo(Signal.SIGTRAP, 0, pid=t.pid))
    debugger = kernel.debugger
    if debugger is not None and debugger.traces(t.group) and debugger.wants_event(Execed):
        kernel.events.append(Execed(t, t.group.exe, former))


# -- exit and wait ---------------------------------------------------------------------------------------------------


@syscall("exit")
def exit_(t: Task, status: Int) -> int:
    """_exit of one thread (exit(2))."""
    if not _exit_event(t, (status & 0xFF) << 8):
        lifecycle.exit_task(t.kernel, t, (status & 0xFF) << 8)
    raise Gone


@syscall("exit_group")
def exit_group(t: Task, status: Int) -> int:
    """exit_group(2)."""
    wait_status = (status & 0xFF) << 8
    if not _exit_event(t, wait_status):
        lifecycle.exit_group(t.kernel, t.group, wait_status)
        lifecycle.exit_task(t.kernel, t, wait_status)
    raise Gone


def _exit_event(t: Task, status: int) -> bool:
    """PTRACE_EVENT_EXIT: the tracee stops once more before it goes; the call runs again when it is resumed."""
    trace = t.trace
    if trace is None or t.call.memo is not None or not trace.options & ptrace.Option.TRACEEXIT:
        return False
    t.call.memo = status
    ptrace.event_stop(t.kernel, t, ptrace.EVENT_EXIT, status)
    raise Block(Wait("ptrace_stop", interruptible=False))


WNOHANG, WUNTRACED, WSTOPPED, WEXITED, WCONTINUED, WNOWAIT = 1, 2, 2, 4, 8, 0x01000000
WNOTHREAD, WALL, WCLONE = 0x20000000, 0x40000000, 0x80000000
P_ALL, P_PID, P_PGID, P_PIDFD = range(4)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a wait found: whose, which wait status, si_code."""

    pid: int
    uid: int
    status: int
    code: int
    usage: Usage


def _wait(t: Task, kind: int, which: int, options: int) -> Collected | None:
    """do_wait(): None for WNOHANG with nothing to report."""
    eligible = False
    for task in list(t.group.tracees.values()):
        if _selected(kind, which, task.tid, task.group.pgid):
            eligible = True
            found = _collect_tracee(t, task, options)
            if found is not None:
                return found
    for group in _children(t, kind, which, options):
        eligible = True
        found = _collect_child(t, group, options)
        if found is not None:
            return found
    if not eligible:
        raise LinuxError(E.ECHILD)
    if options & WNOHANG:
        return None
    raise Block(Wait("do_wait", (t.group.child_event,)))


def _selected(kind: int, which: int, pid: int, pgid: int) -> bool:
    return kind == P_ALL or (kind in (P_PID, P_PIDFD) and which == pid) or (kind == P_PGID and which == pgid)


def _children(t: Task, kind: int, which: int, options: int) -> Iterator[ThreadGroup]:
    if kind in (P_PID, P_PIDFD):
        child = t.group.children.get(which)
        candidates = [child] if child is not None else []
    else:
        candidates = list(t.group.children.values())
    for group in candidates:
        if kind == P_PGID and group.pgid != which:
            continue
        if not options & WALL and (group.exit_signal != Signal.SIGCHLD) != bool(options & WCLONE):
            continue
        yield group


def _collect_tracee(t: Task, task: Task, options: int) -> Collected | None:
    trace = task.trace
    if trace is None or trace.report is None:
        return None
    status = trace.report
    uid = task.credentials.ruid
    if task.state in (TaskState.ZOMBIE, TaskState.DEAD):
        if not options & WEXITED or (task.is_leader and task.group.tasks):
            return None
        found = Collected(task.tid, uid, status, _exit_code(status), task.group.usage)
        if not options & WNOWAIT:
            ptrace.tracee_forgotten(t.kernel, task)
        return found
    if not options & WNOWAIT:
        trace.report = None
    return Collected(task.tid, uid, status, CLD_TRAPPED, task.group.usage)


def _collect_child(t: Task, group: ThreadGroup, options: int) -> Collected | None:
    leader = group.leader
    uid = leader.credentials.ruid if leader is not None else 0
    if group.zombie:
        if not options & WEXITED or (leader is not None and leader.trace is not None):
            return None
        status = group.exit_status
        usage = Usage()
        usage.add(group.usage)
        usage.add(group.child_usage)
        if not options & WNOWAIT:
            lifecycle.reap(t.kernel, group)
        return Collected(group.tgid, uid, status, _exit_code(status), usage)
    report = group.stop_report
    if report is None or (leader is not None and leader.trace is not None):
        return None
    if report == 0xFFFF:
        if not options & WCONTINUED:
            return None
        code = CLD_CONTINUED
    else:
        if not options & WSTOPPED:
            return None
        code = CLD_STOPPED
    if not options & WNOWAIT:
        group.stop_report = None
    return Collected(group.tgid, uid, report, code, group.usage)


def _exit_code(status: int) -> int:
    if status & 0x7F == 0:
        return CLD_EXITED
    return CLD_DUMPED if status & 0x80 else CLD_KILLED


def write_rusage(t: Task, address: int, usage: Usage) -> None:
    """struct rusage."""
    user, system = usage.user_ns // 1000, usage.system_ns // 1000
    words = (*divmod(user, 1_000_000), *divmod(system, 1_000_000), usage.peak_kib, 0, 0, 0)
    rest = (usage.minor_faults, usage.major_faults, 0, 0, 0, 0, 0, 0, usage.switches, 0)
    t.memory.write_struct(address, "l" * 18, *words, *rest[:10])


@syscall("wait4")
def wait4(t: Task, pid: Int, status: Ptr, options: Int, usage: Ptr) -> int:
    """wait4(2)."""
    if options & ~(WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WALL | WCLONE) & 0xFFFFFFFF:
        raise LinuxError(E.EINVAL)
    if pid == -(1 << 31):
        raise LinuxError(E.ESRCH)
    if pid > 0:
        kind, which = P_PID, pid
    elif pid == -1:
        kind, which = P_ALL, 0
    else:
        kind, which = P_PGID, -pid if pid else t.group.pgid
    found = _wait(t, kind, which, options | WEXITED)
    if found is None:
        return 0
    if status:
        t.memory.write_u32(status, found.status)
    if usage:
        write_rusage(t, usage, found.usage)
    return found.pid


@syscall("waitid")
def waitid(t: Task, kind: Int, which: Int, info: Ptr, options: Int, usage: Ptr) -> int:
    """waitid(2)."""
    if options & ~(WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | WNOTHREAD | WALL | WCLONE) & 0xFFFFFFFF:
        raise LinuxError(E.EINVAL)
    if not options & (WEXITED | WSTOPPED | WCONTINUED):
        raise LinuxError(E.EINVAL)
    if kind == P_PID and which <= 0:
        raise LinuxError(E.EINVAL)
    if kind == P_PGID:
        if which < 0:
            raise LinuxError(E.EINVAL)
        which = which or t.group.pgid
    elif kind == P_PIDFD:
        if which < 0:
            raise LinuxError(E.EINVAL)
        which = _pid_of_pidfd(t, which)
    elif kind not in (P_ALL, P_PID):
        raise LinuxError(E.EINVAL)
    found = _wait(t, kind, which, options)
    if usage and found is not None:
        write_rusage(t, usage, found.usage)
    if info:
        if found is None:
            t.memory.write_struct(info, "iii", 0, 0, 0)
            t.memory.write_struct(info + 16, "iii", 0, 0, 0)
        else:
            status = found.status
            if found.code in (CLD_STOPPED, CLD_TRAPPED):
                value = status >> 8
            elif found.code == CLD_EXITED:
                value = status >> 8 & 0xFF
            elif found.code == CLD_CONTINUED:
                value = int(Signal.SIGCONT)
            else:
                value = status & 0x7F
            t.memory.write_struct(info, "iii", Signal.SIGCHLD, 0, found.code)
            t.memory.write_struct(info + 16, "iIi", found.pid, found.uid, value)
    return 0


# -- process groups and sessions -------------------------------------------------------------------------------------


@syscall("getpid")
def getpid(t: Task) -> int:
    """getpid(2)."""
    return t.group.tgid


@syscall("getppid")
def getppid(t: Task) -> int:
    """getppid(2)."""
    return t.group.ppid


@syscall("getpgrp")
def getpgrp(t: Task) -> int:
    """getpgrp(2)."""
    return t.group.pgid


def _group_of(t: Task, pid: int) -> ThreadGroup:
    if pid == 0:
        return t.group
    task = t.kernel.tasks.find(pid)
    if task is None:
        raise LinuxError(E.ESRCH)
    return task.group


@syscall("getpgid")
def getpgid(t: Task, pid: Int) -> int:
    """getpgid(2)."""
    return _group_of(t, pid).pgid


@syscall("getsid")
def getsid(t: Task, pid: Int) -> int:
    """getsid(2)."""
    return _group_of(t, pid).sid


@syscall("setpgid")
def setpgid(t: Task, pid: Int, pgid: Int) -> int:
    """setpgid(2)."""
    pid = pid or t.group.tgid
    pgid = pgid or pid
    if pgid < 0:
        raise LinuxError(E.EINVAL)
    task = t.kernel.tasks.find(pid)
    if task is None:
        raise LinuxError(E.ESRCH)
    group = task.group
    if not task.is_leader:
        raise LinuxError(E.EINVAL)
    if group.parent is t.group:
        if group.session is not t.group.session:
            raise LinuxError(E.EPERM)
        if group.exec_count:
            raise LinuxError(E.EACCES)
    elif group is not t.group:
        raise LinuxError(E.ESRCH)
    if group.sid == group.tgid:
        raise LinuxError(E.EPERM)
    if pgid != pid and not any(member.session is t.group.session for member in t.kernel.members(pgid)):
        raise LinuxError(E.EPERM)
    group.pgid = pgid
    return 0


@syscall("setsid")
def setsid(t: Task) -> int:
    """setsid(2)."""
    group = t.group
    if group.sid == group.tgid or any(True for _ in t.kernel.members(group.tgid)):
        raise LinuxError(E.EPERM)
    group.session = Session(group.tgid)
    group.pgid = group.tgid
    return group.tgid
