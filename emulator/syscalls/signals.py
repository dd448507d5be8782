"""Signals: sending, handling, masking, waiting.

Source: kill(2), tgkill(2), sigaction(2), sigprocmask(2), sigsuspend(2), sigwaitinfo(2), sigaltstack(2), sigreturn(2).
"""

from __future__ import annotations

from dataclasses import replace

from emulator.abi.errno import E
from emulator.abi.signals import (
    MINSIGSTKSZ,
    NSIG,
    SI_TKILL,
    SI_USER,
    SIG_BLOCK,
    SIG_SETMASK,
    SIG_UNBLOCK,
    SIGINFO_SIZE,
    SIGSET_SIZE,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    UNBLOCKABLE,
    AltStack,
    Sa,
    Siginfo,
    Signal,
    SignalAction,
)
from emulator.arch.model import BadFrame
from emulator.errors import LinuxError, MemoryFault
from emulator.kernel import signals
from emulator.kernel.permissions import may_signal
from emulator.kernel.tasks import RegistersReplaced, Task
from emulator.kernel.thread_group import ThreadGroup
from emulator.kernel.waits import Block, Wait
from emulator.syscalls.registry import Int, Ptr, Size, syscall

_SA_KNOWN = Sa.NOCLDSTOP | Sa.NOCLDWAIT | Sa.SIGINFO | Sa.RESTORER | Sa.ONSTACK | Sa.RESTART | Sa.NODEFER
_SA_KEPT = int(_SA_KNOWN | Sa.RESETHAND)


# -- sending ---------------------------------------------------------------------------------------------------------


def _any_task(group: ThreadGroup) -> Task | None:
    if group.leader is not None and group.leader.alive:
        return group.leader
    return next(iter(group.tasks.values()), group.leader)


def _from(t: Task, signo: int, code: int = SI_USER) -> Siginfo:
    return Siginfo(signo, code, pid=t.group.tgid, uid=t.credentials.ruid)


def _check_signo(signo: int) -> None:
    if not 0 <= signo <= NSIG:
        raise LinuxError(E.EINVAL)


@syscall("kill")
def kill(t: Task, pid: Int, signo: Int) -> int:
    """kill(2)."""
    kernel = t.kernel
    if pid > 0:
        task = kernel.tasks.find(pid)
        if task is None:
            raise LinuxError(E.ESRCH)
        _check_signo(signo)
        return _kill_group(t, task.group, signo)
    if pid == -(1 << 31):
        raise LinuxError(E.ESRCH)
    if pid == -1:
        groups = [group for group in kernel.groups.values() if group is not t.group]
    else:
        groups = list(kernel.members(-pid if pid else t.group.pgid))
    if not groups:
        raise LinuxError(E.ESRCH)
    _check_signo(signo)
    result: LinuxError | None = None
    sent = False
    for group in groups:
        try:
            _kill_group(t, group, signo)
            sent = True
        except LinuxError as error:
            result = error
    if not sent and result is not None:
        raise result
    return 0


def _kill_group(t: Task, group: ThreadGroup, signo: int) -> int:
    target = _any_task(group)
    if target is None:
        raise LinuxError(E.ESRCH)
    if not may_signal(t, target, signo):
        raise LinuxError(E.EPERM)
    if signo:
        signals.send_to_group(group, _from(t, signo))
    return 0


def _thread(t: Task, tgid: int | None, tid: int) -> Task:
    task = t.kernel.tasks.find(tid)
    if task is None or (tgid is not None and task.group.tgid != tgid):
        raise LinuxError(E.ESRCH)
    return task


def _send_thread(t: Task, task: Task, info: Siginfo | None, signo: int) -> int:
    if not may_signal(t, task, signo):
        raise LinuxError(E.EPERM)
    if signo and info is not None:
        signals.send_to_task(task, info)
    return 0


@syscall("tgkill")
def tgkill(t: Task, tgid: Int, tid: Int, signo: Int) -> int:
    """tgkill(2)."""
    if tgid <= 0 or tid <= 0:
        raise LinuxError(E.EINVAL)
    task = _thread(t, tgid, tid)
    _check_signo(signo)
    return _send_thread(t, task, _from(t, signo, SI_TKILL), signo)


@syscall("tkill")
def tkill(t: Task, tid: Int, signo: Int) -> int:
    """tkill(2)."""
    if tid <= 0:
        raise LinuxError(E.EINVAL)
    task = _thread(t, None, tid)
    _check_signo(signo)
    return _send_thread(t, task, _from(t, signo, SI_TKILL), signo)


def read_siginfo(t: Task, address: int) -> Siginfo:
    """siginfo_t from user memory."""
    return Siginfo.unpack(t.memory.read(address, SIGINFO_SIZE), t.arch.bits, t.arch.struct_order)


def write_siginfo(t: Task, address: int, info: Siginfo) -> None:
    """siginfo_t to user memory."""
    t.memory.write(address, info.pack(t.arch.bits, t.arch.struct_order))


def _queued(t: Task, address: int, signo: int, *, to_self: bool) -> Siginfo:
    """The siginfo of rt_sigqueueinfo: nobody may pretend to be the kernel or kill()."""
    info = read_siginfo(t, address)
    info = replace(info, signo=signo)
    if (info.code >= 0 or info.code == SI_TKILL) and not to_self:
        raise LinuxError(E.EPERM)
    return info


@syscall("rt_sigqueueinfo")
def rt_sigqueueinfo(t: Task, pid: Int, signo: Int, info: Ptr) -> int:
    """rt_sigqueueinfo(2)."""
    queued = _queued(t, info, signo, to_self=pid == t.group.tgid)
    task = t.kernel.tasks.find(pid)
    if task is None:
        raise LinuxError(E.ESRCH)
    _check_signo(signo)
    if not may_signal(t, task, signo):
        raise LinuxError(E.EPERM)
    if signo:
        signals.send_to_group(task.group, queued)
    return 0


@syscall("rt_tgsigqueueinfo")
def rt_tgsigqueueinfo(t: Task, tgid: Int, tid: Int, signo: Int, info: Ptr) -> int:
    """rt_tgsigqueueinfo(2)."""
    queued = _queued(t, info, signo, to_self=tid == t.tid)
    if tgid <= 0 or tid <= 0:
        raise LinuxError(E.EINVAL)
    task = _thread(t, tgid, tid)
    _check_signo(signo)
    return _send_thread(t, task, queued, signo)


# -- dispositions and masks ------------------------------------------------------------------------------------------


def _read_mask(t: Task, address: int, size: int) -> int:
    if size != SIGSET_SIZE:
        raise LinuxError(E.EINVAL)
    return t.memory.read_u64(address)


@syscall("rt_sigaction")
def rt_sigaction(t: Task, signo: Int, new: Ptr, old: Ptr, size: Size) -> int:
    """rt_sigaction(2)."""
    if size != SIGSET_SIZE:
        raise LinuxError(E.EINVAL)
    wanted: SignalAction | None = None
    if new:
        handler, flags, restorer, mask = t.memory.read_struct(new, "PLPQ")
        wanted = SignalAction(handler, flags & _SA_KEPT, restorer, mask & ~_UNBLOCKABLE & signals.ALL_SIGNALS)
    if not 1 <= signo <= NSIG or (wanted is not None and signo in UNBLOCKABLE):
        raise LinuxError(E.EINVAL)
    sighand = t.group.sighand
    before = sighand.actions[signo]
    if wanted is not None:
        sighand.actions[signo] = wanted
        if sighand.ignores(signo):
            signals.ignored_now_discard(t.group, signo)
    if old:
        flags = before.flags
        t.memory.write_struct(old, "PLPQ", before.handler, flags, before.restorer, before.mask)
    return 0


_UNBLOCKABLE = sum(1 << (signo - 1) for signo in UNBLOCKABLE)


@syscall("rt_sigprocmask")
def rt_sigprocmask(t: Task, how: Int, new: Ptr, old: Ptr, size: Size) -> int:
    """rt_sigprocmask(2)."""
    if size != SIGSET_SIZE:
        raise LinuxError(E.EINVAL)
    state = t.signals
    before = state.mask
    if new:
        mask = t.memory.read_u64(new)
        if how == SIG_BLOCK:
            mask |= before
        elif how == SIG_UNBLOCK:
            mask = before & ~mask
        elif how != SIG_SETMASK:
            raise LinuxError(E.EINVAL)
        change_mask(t, mask)
    if old:
        t.memory.write_u64(old, before)
    return 0


def change_mask(t: Task, mask: int) -> None:
    """Replace the blocked set; what becomes deliverable is delivered before user mode.

    A process-directed signal that this thread now blocks is offered to the others (retarget_shared_pending).
    """
    state, group = t.signals, t.group
    newly_blocked = mask & ~state.mask & group.pending.mask
    state.set_mask(mask)
    if state.deliverable(group.pending):
        t.attention = True
    if newly_blocked:
        for other in group.tasks.values():
            if other is not t and other.signals.deliverable(group.pending):
                t.kernel.scheduler.notify(other)


@syscall("rt_sigpending")
def rt_sigpending(t: Task, address: Ptr, size: Size) -> int:
    """rt_sigpending(2)."""
    if size > SIGSET_SIZE:
        raise LinuxError(E.EINVAL)
    pending = (t.signals.pending.mask | t.group.pending.mask) & t.signals.mask
    t.memory.write(address, pending.to_bytes(8, "little" if t.memory.byteorder == "little" else "big")[:size])
    return 0


@syscall("rt_sigtimedwait")
def rt_sigtimedwait(t: Task, wanted: Ptr, info: Ptr, timeout: Ptr, size: Size) -> int:
    """rt_sigtimedwait(2)."""
    mask = _read_mask(t, wanted, size) & ~_UNBLOCKABLE
    call, state = t.call, t.signals
    if call.memo is None and timeout:
        call.deadline_ns = t.kernel.clock.monotonic_ns() + t.memory.read_timespec(timeout)
    found = signals.take(t, mask)
    if found is not None:
        state.waiting_for = 0
        if info:
            write_siginfo(t, info, found)
        return found.signo
    if call.deadline_ns is not None and t.kernel.clock.monotonic_ns() >= call.deadline_ns:
        state.waiting_for = 0
        raise LinuxError(E.EAGAIN)
    call.memo = True
    state.waiting_for = mask
    raise Block(Wait("sigtimedwait", deadline_ns=call.deadline_ns, restart=E.EINTR, interrupted=_stop_waiting))


def _stop_waiting(t: Task) -> int | None:
    t.signals.waiting_for = 0
    return None


def set_temporary_mask(t: Task, mask: int) -> None:
    """The mask of sigsuspend, ppoll, pselect, epoll_pwait: in force until the call ends or a handler runs."""
    if t.signals.saved_mask is None:
        t.signals.saved_mask = t.signals.mask
    t.signals.set_mask(mask)
    t.attention = True


@syscall("rt_sigsuspend")
def rt_sigsuspend(t: Task, address: Ptr, size: Size) -> int:
    """rt_sigsuspend(2)."""
    if t.call.memo is None:
        mask = _read_mask(t, address, size)
        t.call.memo = True
        set_temporary_mask(t, mask)
    raise Block(Wait("sigsuspend", restart=E.ERESTARTNOHAND))


@syscall("pause")
def pause(t: Task) -> int:
    """pause(2)."""
    raise Block(Wait("pause", restart=E.ERESTARTNOHAND))


@syscall("rt_sigreturn")
def rt_sigreturn(t: Task) -> int:
    """rt_sigreturn(2): what the frame on the stack says."""
    kernel = t.kernel
    try:
        restored = t.arch.signal_frame.pop(kernel.cpu, t.memory)
    except (MemoryFault, BadFrame, LinuxError):
        signals.force(t, signals.kernel_info(Signal.SIGSEGV))
        raise RegistersReplaced from None
    change_mask(t, restored.mask)
    sp = kernel.cpu.read(t.arch.sp)
    if not t.signals.altstack.holds(sp):
        stack = restored.altstack
        t.signals.altstack = AltStack() if stack.flags & SS_DISABLE else replace(stack, flags=stack.flags & ~SS_ONSTACK)
    t.call.check_restart = False
    raise RegistersReplaced


@syscall("sigaltstack")
def sigaltstack(t: Task, new: Ptr, old: Ptr) -> int:
    """sigaltstack(2)."""
    memory, before = t.memory, t.signals.altstack
    size = 24 if t.arch.bits == 64 else 12
    wanted = AltStack.unpack(memory.read(new, size), t.arch.bits) if new else None
    on_it = before.holds(t.kernel.cpu.read(t.arch.sp)) and not before.flags & SS_AUTODISARM
    shown = before.flags | (SS_ONSTACK if on_it else 0)
    if wanted is not None:
        if on_it:
            raise LinuxError(E.EPERM)
        mode = wanted.flags & ~SS_AUTODISARM & 0xFFFFFFFF
        if mode not in (0, SS_ONSTACK, SS_DISABLE):
            raise LinuxError(E.EINVAL)
        if mode == SS_DISABLE:
            t.signals.altstack = AltStack()
        elif wanted.size < MINSIGSTKSZ:
            raise LinuxError(E.ENOMEM)
        else:
            t.signals.altstack = replace(wanted, flags=wanted.flags & SS_AUTODISARM)
    if old:
        memory.write(old, replace(before, flags=shown).pack(t.arch.bits))
    return 0
