"""Processes: clone and its kin, execve, exit.

Source: clone(2), fork(2), vfork(2), unshare(2), execve(2), exit_group(2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.abi.memory import Access
from emulator.abi.signals import (
    NSIG,
    Siginfo,
    Signal,
)
from emulator.errors import LinuxError
from emulator.kernel import exec as loading
from emulator.kernel import futex, lifecycle, ptrace, signals
from emulator.kernel.credentials import CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN, CAP_SYS_RESOURCE
from emulator.kernel.events import Execed, Forked, ForkKind, ThreadCreated
from emulator.kernel.files.pidfd import PidfdDescription
from emulator.kernel.image import FatalExec, Program, rlimit_reader
from emulator.kernel.tasks import PID_MAX, Gone, RegistersReplaced, Task
from emulator.kernel.thread_group import RLIMIT_NPROC, ThreadGroup
from emulator.kernel.timers import arm_cpu_limit
from emulator.kernel.waits import Block, Wait, WaitQueue
from emulator.syscalls.registry import Fd, Int, Ptr, Size, syscall

if TYPE_CHECKING:
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
MAX_TASKS = 30000  # what a kernel of some gigabytes allows (/proc/sys/kernel/threads-max)
NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET


ORDINARY_POLICIES = (0, 3, 5)  # SCHED_OTHER, SCHED_BATCH, SCHED_IDLE
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
    if len(t.kernel.tasks) >= MAX_TASKS or _too_many_processes(t):
        raise LinuxError(E.EAGAIN)


def _too_many_processes(t: Task) -> bool:
    """RLIMIT_NPROC (getrlimit(2)): threads of the real user id; neither root nor an administrator has a limit."""
    who, tasks, limit = t.credentials, t.kernel.tasks, t.group.rlimits[RLIMIT_NPROC][0]
    if len(tasks) < limit or who.ruid == 0 or who.capable(CAP_SYS_RESOURCE) or who.capable(CAP_SYS_ADMIN):
        return False
    return sum(task.credentials.ruid == who.ruid for task in tasks) >= limit


def _clone(t: Task, args: CloneArgs) -> int:
    """kernel_clone(): make the child, tell whoever listens, and for vfork wait for it."""
    if t.call.memo is not None:
        return _vfork_wait(t)
    _check(t, args)
    kernel, flags = t.kernel, args.flags
    if flags & CLONE_PIDFD:
        t.fds.lowest_free()
        t.memory.buffers(args.pidfd, 4, Access.WRITE)  # what cannot be told is not made
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
        uid = kernel.tasks.allocate(kernel.ids_in_use(), _chosen_tid(t, args))
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
    if t.reset_on_fork:
        child.nice = max(t.nice, 0)
        child.scheduling = t.scheduling if t.scheduling[0] in ORDINARY_POLICIES else (0, 0)
    child.ioprio, child.personality, child.mempolicy = t.ioprio, t.personality, t.mempolicy
    child.timer_slack_ns = child.default_timer_slack_ns = t.timer_slack_ns
    child.seccomp, child.watch_calls = t.seccomp, t.seccomp is not None
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


def _chosen_tid(t: Task, args: CloneArgs) -> int | None:
    """clone3's set_tid: the number the child shall have (alloc_pid)."""
    if not args.set_tid:
        return None
    tid = args.set_tid[0]
    if len(args.set_tid) > 1 or tid < 1 or tid >= PID_MAX:
        raise LinuxError(E.EINVAL)
    if not (t.credentials.capable(CAP_SYS_ADMIN) or t.credentials.capable(CAP_CHECKPOINT_RESTORE)):
        raise LinuxError(E.EPERM)
    if t.kernel.tasks.find(tid) is not None or tid in t.kernel.ids_in_use():
        raise LinuxError(E.EEXIST)
    return tid


def _new_group(t: Task, tgid: int, args: CloneArgs) -> ThreadGroup:
    old = t.group
    parent = old.parent if args.flags & CLONE_PARENT else old
    sighand = old.sighand if args.flags & CLONE_SIGHAND else old.sighand.copy()
    if args.flags & CLONE_CLEAR_SIGHAND:
        sighand.reset_for_exec()
    group = ThreadGroup(tgid, parent, old.pgid, old.session, sighand)
    group.forked_by = old.forked_by if args.flags & CLONE_PARENT else t
    group.exit_signal = old.exit_signal if args.flags & CLONE_PARENT else args.exit_signal
    group.rlimits = type(old.rlimits)(old.rlimits)
    arm_cpu_limit(t.kernel, group)
    group.exe, group.argv, group.envp = old.exe, old.argv, old.envp
    group.start_ns = t.kernel.clock.monotonic_ns()
    group.dumpable = old.dumpable
    group.oom_score_adj, group.oom_score_adj_min = old.oom_score_adj, old.oom_score_adj_min
    group.coredump_filter = old.coredump_filter
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


# -- exit ---------------------------------------------------------------------------------------------------


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
