"""ptrace(2) and process_vm_readv(2) for guests.

Rule: every request first finds its tracee through the registry; one that has gone, is not ours, or is not stopped
where it has to be gives ESRCH, whatever the interleaving.  Source: ptrace(2), kernel/ptrace.c, process_vm_readv(2).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from enum import IntEnum

from emulator.abi.errno import E
from emulator.abi.notes import REGISTER_SETS
from emulator.abi.signals import NSIG, SI_USER, SIGINFO_SIZE, Siginfo, Signal
from emulator.errors import LinuxError, MemoryFault
from emulator.kernel import ptrace as tracing
from emulator.kernel import signals
from emulator.kernel.permissions import may_access
from emulator.kernel.ptrace import EVENT_STOP, Option, Stop, Trace
from emulator.kernel.tasks import Task, TaskState
from emulator.syscalls.registry import Int, Long, Ptr, Size, syscall
from emulator.syscalls.signals import change_mask, read_siginfo, write_siginfo


class Request(IntEnum):
    """PTRACE_*."""

    TRACEME = 0
    PEEKTEXT = 1
    PEEKDATA = 2
    PEEKUSER = 3
    POKETEXT = 4
    POKEDATA = 5
    POKEUSER = 6
    CONT = 7
    KILL = 8
    SINGLESTEP = 9
    GETREGS = 12
    SETREGS = 13
    GETFPREGS = 14
    SETFPREGS = 15
    ATTACH = 16
    DETACH = 17
    SYSCALL = 24
    SETOPTIONS = 0x4200
    GETEVENTMSG = 0x4201
    GETSIGINFO = 0x4202
    SETSIGINFO = 0x4203
    GETREGSET = 0x4204
    SETREGSET = 0x4205
    SEIZE = 0x4206
    INTERRUPT = 0x4207
    LISTEN = 0x4208
    PEEKSIGINFO = 0x4209
    GETSIGMASK = 0x420A
    SETSIGMASK = 0x420B
    GET_SYSCALL_INFO = 0x420E


OPTIONS = 0x3000FF  # every PTRACE_O_* there is
DEBUG_REGISTERS = 848  # offsetof(struct user, u_debugreg), x86-64
USER_SIZE = 912


@syscall("ptrace")
def ptrace(t: Task, request: Long, pid: Long, address: Ptr, data: Ptr) -> int:
    """ptrace(2)."""
    if request == Request.TRACEME:
        return _trace_me(t)
    task = t.kernel.tasks.find(pid & 0xFFFFFFFF)
    if task is None:
        raise LinuxError(E.ESRCH)
    if not task.alive:
        return _of_a_zombie(t, task, request)
    if request in (Request.ATTACH, Request.SEIZE):
        return _attach(t, task, address, data, seize=request == Request.SEIZE)
    trace = task.trace
    if trace is None or trace.tracer is not t:
        raise LinuxError(E.ESRCH)
    if request == Request.KILL:
        if task.state is TaskState.STOPPED:
            signals.send_to_group(task.group, signals.kernel_info(Signal.SIGKILL))
        return 0
    if request == Request.INTERRUPT:
        return _interrupt(t, task, trace)
    if task.state is not TaskState.STOPPED or trace.stop is None or trace.listening:
        raise LinuxError(E.ESRCH)
    handler = _REQUESTS.get(request)
    if handler is None:
        raise LinuxError(E.EIO)
    return handler(t, task, address, data)


def _of_a_zombie(t: Task, task: Task, request: int) -> int:
    """What can be asked of a tracee that has died and is not reaped: the requests that need no stop."""
    if request in (Request.ATTACH, Request.SEIZE):
        raise LinuxError(E.EPERM)
    trace = task.trace or task.last_trace
    if trace is None or trace.tracer is not t or request not in (Request.KILL, Request.INTERRUPT):
        raise LinuxError(E.ESRCH)
    if request == Request.INTERRUPT and not trace.seized:
        raise LinuxError(E.EIO)
    return 0


def _trace_me(t: Task) -> int:
    if t.trace is not None:
        raise LinuxError(E.EPERM)
    parent = t.group.parent
    if parent is not None:
        by = t.group.forked_by
        tracer = by if by is not None and by.alive and by.group is parent else parent.leader
        if tracer is not None:
            tracing.attach(t.kernel, tracer, t, seized=False)
    return 0


def _attach(t: Task, task: Task, address: int, data: int, *, seize: bool) -> int:
    if seize and (address or data & ~OPTIONS):
        raise LinuxError(E.EIO)
    if task.group is t.group or not may_access(t, task) or task.trace is not None or task.space is None:
        raise LinuxError(E.EPERM)
    tracing.attach(t.kernel, t, task, seized=seize, options=data if seize else 0)
    trace = task.trace
    if task.group.stopped:
        tracing.group_stop(t.kernel, task, task.group.stop_signal)
        if not seize and trace is not None:
            trace.report = Signal.SIGSTOP << 8 | 0x7F
    elif not seize:
        signals.send_to_task(task, Siginfo(Signal.SIGSTOP, SI_USER))
    return 0


def _interrupt(t: Task, task: Task, trace: Trace) -> int:
    if not trace.seized:
        raise LinuxError(E.EIO)
    if trace.listening:
        trace.listening = False
        tracing.event_trap(t.kernel, task)
        return 0
    trace.interrupt = True
    task.interrupt_call = True
    t.kernel.scheduler.notify(task)
    return 0


# -- memory ----------------------------------------------------------------------------------------------------------


def _peek(t: Task, task: Task, address: int, data: int) -> int:
    size = t.memory.pointer_size
    try:
        word = task.space.table.read(address, size, force=True)
    except MemoryFault:
        raise LinuxError(E.EIO) from None
    t.memory.write(data, word)
    return 0


def _poke(t: Task, task: Task, address: int, data: int) -> int:
    size = t.memory.pointer_size
    order = "little" if t.arch.byteorder == "little" else "big"
    try:
        task.space.table.write(address, data.to_bytes(size, order), force=True)  # type: ignore[arg-type]
    except MemoryFault:
        raise LinuxError(E.EIO) from None
    return 0


def _peek_user(t: Task, task: Task, address: int, data: int) -> int:
    size = t.memory.pointer_size
    if address % size or address > USER_SIZE - size:
        raise LinuxError(E.EIO)
    raw = _note(task, 1)
    if address < len(raw):
        value = raw[address : address + size]
    elif DEBUG_REGISTERS <= address < DEBUG_REGISTERS + 8 * size and task.trace is not None:
        number = (address - DEBUG_REGISTERS) // size
        value = struct.pack("<Q", task.trace.debug_registers[number])
    else:
        value = bytes(size)
    t.memory.write(data, value)
    return 0


def _poke_user(t: Task, task: Task, address: int, data: int) -> int:
    size = t.memory.pointer_size
    if address % size or address > USER_SIZE - size:
        raise LinuxError(E.EIO)
    raw = bytearray(_note(task, 1))
    if address < len(raw):
        raw[address : address + size] = data.to_bytes(size, "little")
        _write_note(task, 1, bytes(raw))
        return 0
    if DEBUG_REGISTERS <= address < DEBUG_REGISTERS + 8 * size and task.trace is not None:
        number = (address - DEBUG_REGISTERS) // size
        if number in (4, 5):
            raise LinuxError(E.EIO)
        tracing.write_debug_register(t.kernel, task, number, data)
        return 0
    raise LinuxError(E.EIO)


# -- registers -------------------------------------------------------------------------------------------------------


def _note(task: Task, kind: int) -> bytes:
    """One register set of a stopped tracee; EINVAL for a kind the ISA has not."""
    note = task.arch.notes.get(REGISTER_SETS.get(kind, ""))
    if note is None:
        raise LinuxError(E.EINVAL)
    return note.pack(task.kernel.registers_of(task))


def _write_note(task: Task, kind: int, raw: bytes) -> None:
    note = task.arch.notes.get(REGISTER_SETS.get(kind, ""))
    if note is None:
        raise LinuxError(E.EINVAL)
    file = task.kernel.registers_of(task)
    note.unpack(raw, file)
    task.kernel.write_registers(task, file)


def _get_regs(kind: int) -> Callable[[Task, Task, int, int], int]:
    def get(t: Task, task: Task, address: int, data: int) -> int:
        t.memory.write(data, _note(task, kind))
        return 0

    return get


def _set_regs(kind: int) -> Callable[[Task, Task, int, int], int]:
    def put(t: Task, task: Task, address: int, data: int) -> int:
        _write_note(task, kind, t.memory.read(data, len(_note(task, kind))))
        return 0

    return put


def _get_regset(t: Task, task: Task, kind: int, iovec: int) -> int:
    base, length = t.memory.read_struct(iovec, "PL")
    raw = _note(task, kind)[:length]
    if length % _unit(kind):
        raise LinuxError(E.EINVAL)
    t.memory.write(base, raw)
    t.memory.write_ptr(iovec + t.memory.pointer_size, len(raw))
    return 0


def _set_regset(t: Task, task: Task, kind: int, iovec: int) -> int:
    base, length = t.memory.read_struct(iovec, "PL")
    size = len(_note(task, kind))
    if length % _unit(kind):
        raise LinuxError(E.EINVAL)
    raw = t.memory.read(base, min(length, size))
    _write_note(task, kind, raw)
    t.memory.write_ptr(iovec + t.memory.pointer_size, len(raw))
    return 0


def _unit(kind: int) -> int:
    """The size of a register set's elements, of which iov_len has to be a multiple."""
    return 4 if kind == 2 else 8


# -- resuming --------------------------------------------------------------------------------------------------------


def _resume(*, calls: bool, step: bool) -> Callable[[Task, Task, int, int], int]:
    def go(t: Task, task: Task, address: int, data: int) -> int:
        if data > NSIG:
            raise LinuxError(E.EIO)
        tracing.resume(t.kernel, task, data, calls=calls, step=step)
        return 0

    return go


def _detach(t: Task, task: Task, address: int, data: int) -> int:
    if data > NSIG:
        raise LinuxError(E.EIO)
    tracing.detach(t.kernel, task, data)
    return 0


def _listen(t: Task, task: Task, address: int, data: int) -> int:
    trace = task.trace
    if trace is None or not trace.seized:
        raise LinuxError(E.EIO)
    info = trace.info
    if info is None or info.code >> 8 != EVENT_STOP:
        raise LinuxError(E.EIO)
    trace.report = None
    if trace.notify or trace.interrupt:
        tracing.event_trap(t.kernel, task)
    else:
        trace.listening = True
    return 0


# -- everything about the stop -----------------------------------------------------------------------------------------


def _set_options(t: Task, task: Task, address: int, data: int) -> int:
    if data & ~OPTIONS or data & (Option.TRACESECCOMP | Option.SUSPEND_SECCOMP) & ~Option.TRACESECCOMP:
        raise LinuxError(E.EINVAL)
    if task.trace is not None:
        task.trace.options = data
    return 0


def _get_event_message(t: Task, task: Task, address: int, data: int) -> int:
    trace = task.trace
    t.memory.write_ptr(data, trace.message if trace is not None else 0)
    return 0


def _info(task: Task) -> Siginfo:
    trace = task.trace
    if trace is None or trace.info is None:
        raise LinuxError(E.EINVAL)
    return trace.info


def _get_siginfo(t: Task, task: Task, address: int, data: int) -> int:
    write_siginfo(t, data, _info(task))
    return 0


def _set_siginfo(t: Task, task: Task, address: int, data: int) -> int:
    _info(task)
    wanted = read_siginfo(t, data)
    if task.trace is not None:
        task.trace.info = wanted
    return 0


def _peek_siginfo(t: Task, task: Task, address: int, data: int) -> int:
    offset, flags, count = t.memory.read_struct(address, "QIi")
    if flags & ~1 or count < 0:
        raise LinuxError(E.EINVAL)
    queue = task.group.pending if flags & 1 else task.signals.pending
    found = queue.peek()[offset : offset + count]
    for index, info in enumerate(found):
        write_siginfo(t, data + SIGINFO_SIZE * index, info)
    return len(found)


def _get_sigmask(t: Task, task: Task, address: int, data: int) -> int:
    if address != 8:
        raise LinuxError(E.EINVAL)
    saved = task.signals.saved_mask
    t.memory.write_u64(data, task.signals.mask if saved is None else saved)
    return 0


def _set_sigmask(t: Task, task: Task, address: int, data: int) -> int:
    if address != 8:
        raise LinuxError(E.EINVAL)
    change_mask(task, t.memory.read_u64(data))
    return 0


def _get_syscall_info(t: Task, task: Task, size: int, data: int) -> int:
    """struct ptrace_syscall_info; the answer is its whole size, of which `size` bytes are copied."""
    trace, arch = task.trace, task.arch
    file = task.kernel.registers_of(task)
    stop = trace.stop if trace is not None else None
    head = struct.pack("<IQQ", 0xC0000000 | arch.elf_machine, file.read(arch.pc), file.read(arch.sp))
    kind, body = 0, b""
    if stop is Stop.ENTRY:
        number = file.read(arch.convention.saved or arch.convention.number)
        args = (file.read(name) for name in arch.convention.args)
        kind, body = 1, struct.pack("<7Q", number, *args)
    elif stop is Stop.EXIT:
        value = file.read(arch.convention.result)
        top = 1 << 64
        is_error = value >= top - 4095
        kind, body = 2, struct.pack("<QB", value, is_error)
    raw = bytes((kind, 0, 0, 0)) + head + body
    t.memory.write(data, raw[:size])
    return len(raw)


_REQUESTS: dict[int, Callable[[Task, Task, int, int], int]] = {
    Request.PEEKTEXT: _peek,
    Request.PEEKDATA: _peek,
    Request.PEEKUSER: _peek_user,
    Request.POKETEXT: _poke,
    Request.POKEDATA: _poke,
    Request.POKEUSER: _poke_user,
    Request.CONT: _resume(calls=False, step=False),
    Request.SYSCALL: _resume(calls=True, step=False),
    Request.SINGLESTEP: _resume(calls=False, step=True),
    Request.GETREGS: _get_regs(1),
    Request.SETREGS: _set_regs(1),
    Request.GETFPREGS: _get_regs(2),
    Request.SETFPREGS: _set_regs(2),
    Request.DETACH: _detach,
    Request.SETOPTIONS: _set_options,
    Request.GETEVENTMSG: _get_event_message,
    Request.GETSIGINFO: _get_siginfo,
    Request.SETSIGINFO: _set_siginfo,
    Request.GETREGSET: _get_regset,
    Request.SETREGSET: _set_regset,
    Request.LISTEN: _listen,
    Request.PEEKSIGINFO: _peek_siginfo,
    Request.GETSIGMASK: _get_sigmask,
    Request.SETSIGMASK: _set_sigmask,
    Request.GET_SYSCALL_INFO: _get_syscall_info,
}


# -- process_vm_readv ------------------------------------------------------------------------------------------------


def _vm(t: Task, pid: int, flags: int) -> Task:
    if flags:
        raise LinuxError(E.EINVAL)
    task = t.kernel.tasks.find(pid)
    if task is None or not task.alive:
        raise LinuxError(E.ESRCH)
    if task.space is None or not may_access(t, task):
        raise LinuxError(E.EPERM)
    return task


@syscall("process_vm_readv")
def process_vm_readv(
    t: Task, pid: Int, local: Ptr, local_count: Size, remote: Ptr, remote_count: Size, flags: Size
) -> int:
    """process_vm_readv(2): as much as could be copied, EFAULT if nothing."""
    here = t.memory.read_iovec(local, local_count)
    there = t.memory.read_iovec(remote, remote_count)
    task = _vm(t, pid, flags)
    room = sum(length for _, length in here)
    gathered = bytearray()
    complete = True
    for base, length in there:
        wanted = min(length, room - len(gathered))
        if not length:
            continue
        if not wanted:
            break
        part = task.space.table.read_partial(base, wanted)
        gathered += part
        if len(part) < wanted:
            complete = False
            break
    if not gathered and not complete:
        raise LinuxError(E.EFAULT)
    return _scatter(t, here, bytes(gathered))


def _scatter(t: Task, vectors: Iterable[tuple[int, int]], data: bytes) -> int:
    done = 0
    for base, length in vectors:
        part = data[done : done + length]
        if not length:
            continue
        if not part:
            break
        try:
            t.memory.write(base, part)
        except LinuxError:
            if not done:
                raise
            break
        done += len(part)
    return done


@syscall("process_vm_writev")
def process_vm_writev(
    t: Task, pid: Int, local: Ptr, local_count: Size, remote: Ptr, remote_count: Size, flags: Size
) -> int:
    """process_vm_writev(2)."""
    here = t.memory.read_iovec(local, local_count)
    there = t.memory.read_iovec(remote, remote_count)
    task = _vm(t, pid, flags)
    data = b"".join(t.memory.read(base, length) for base, length in here)
    return _scatter(task, there, data)
