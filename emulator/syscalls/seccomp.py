"""seccomp(2), and its older door in prctl(2).  Source: seccomp(2), kernel/seccomp.c."""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel import bpf
from emulator.kernel.bpf import Insn
from emulator.kernel.credentials import CAP_SYS_ADMIN
from emulator.kernel.seccomp import ACTIONS, DATA_SIZE, FILTER, STRICT, Seccomp
from emulator.kernel.tasks import Task
from emulator.syscalls.registry import Ptr, UInt, syscall

SET_MODE_STRICT, SET_MODE_FILTER, GET_ACTION_AVAIL, GET_NOTIF_SIZES = range(4)
FLAG_TSYNC, FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_TSYNC_ESRCH = 1, 2, 4, 16
_FLAGS = FLAG_TSYNC | FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_TSYNC_ESRCH  # there are no listeners


@syscall("seccomp")
def seccomp(t: Task, operation: UInt, flags: UInt, args: Ptr) -> int:
    """seccomp(2)."""
    match operation:
        case 0:
            if flags or args:
                raise LinuxError(E.EINVAL)
            return set_strict(t)
        case 1:
            return set_filter(t, flags, args)
        case 2:
            if flags:
                raise LinuxError(E.EINVAL)
            if t.memory.read_u32(args) not in ACTIONS:
                raise LinuxError(E.EOPNOTSUPP)
            return 0
    raise LinuxError(E.EINVAL)


def prctl_set(t: Task, mode: int, program: int) -> int:
    """PR_SET_SECCOMP."""
    if mode == STRICT:
        return set_strict(t)
    if mode == FILTER:
        return set_filter(t, 0, program)
    raise LinuxError(E.EINVAL)


def set_strict(t: Task) -> int:
    """read, write, exit and sigreturn from now on."""
    if t.seccomp is not None and t.seccomp.mode != STRICT:
        raise LinuxError(E.EINVAL)
    _install(t, Seccomp(STRICT))
    return 0


def set_filter(t: Task, flags: int, address: int) -> int:
    """Put a filter in front of those there are."""
    if flags & ~_FLAGS:
        raise LinuxError(E.EINVAL)
    program = _read_program(t, address)
    if not t.credentials.no_new_privs and not t.credentials.capable(CAP_SYS_ADMIN):
        raise LinuxError(E.EACCES)
    bpf.check(program, DATA_SIZE)
    old = t.seccomp
    if old is not None and old.mode != FILTER:
        raise LinuxError(E.EINVAL)
    new = Seccomp(FILTER, (program, *(old.filters if old is not None else ())))
    if not flags & FLAG_TSYNC:
        _install(t, new)
        return 0
    mine = old.filters if old is not None else ()
    for task in t.group.tasks.values():
        theirs = task.seccomp.filters if task.seccomp is not None else ()
        if theirs and mine[len(mine) - len(theirs) :] != theirs:
            if flags & FLAG_TSYNC_ESRCH:
                raise LinuxError(E.ESRCH)
            return task.tid
    for task in t.group.tasks.values():
        _install(task, new)
    return 0


def _read_program(t: Task, address: int) -> tuple[Insn, ...]:
    """struct sock_fprog."""
    count, where = t.memory.read_struct(address, f"H{t.memory.pointer_size - 2}xP")
    if not 0 < count <= bpf.MAX_INSNS:
        raise LinuxError(E.EINVAL)
    words = t.memory.read_struct(where, "HBBI" * count)
    return tuple(Insn(*words[index : index + 4]) for index in range(0, 4 * count, 4))


def _install(task: Task, state: Seccomp) -> None:
    task.seccomp = state
    task.watch_calls = True
