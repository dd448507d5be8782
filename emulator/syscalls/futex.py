"""futex(2), all operations, and futex_waitv(2).

Source: futex(2), kernel/futex/syscalls.c; FUTEX_OP of <linux/futex.h>.
"""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel import futex as core
from emulator.kernel.futex import FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS, MATCH_ANY, Waiter, key_of
from emulator.kernel.tasks import Task, TaskState
from emulator.kernel.waits import Block, Wait
from emulator.syscalls.registry import Int, Ptr, UInt, syscall

(
    FUTEX_WAIT,
    FUTEX_WAKE,
    FUTEX_FD,
    FUTEX_REQUEUE,
    FUTEX_CMP_REQUEUE,
    FUTEX_WAKE_OP,
    FUTEX_LOCK_PI,
    FUTEX_UNLOCK_PI,
    FUTEX_TRYLOCK_PI,
    FUTEX_WAIT_BITSET,
    FUTEX_WAKE_BITSET,
    FUTEX_WAIT_REQUEUE_PI,
    FUTEX_CMP_REQUEUE_PI,
    FUTEX_LOCK_PI2,
) = range(14)
PRIVATE, CLOCK_REALTIME = 128, 256
_CAN_REALTIME = (FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI, FUTEX_LOCK_PI2)


@syscall("futex")
def futex(t: Task, address: Ptr, operation: Int, value: UInt, timeout: Ptr, address2: Ptr, value3: UInt) -> int | Wait:
    """futex(2)."""
    shared = not operation & PRIVATE
    command = operation & ~(PRIVATE | CLOCK_REALTIME)
    if command == FUTEX_WAKE and not operation & CLOCK_REALTIME:
        return core.wake(t.kernel, key_of(t, address, shared=shared), max(_s32(value), 1))
    realtime = bool(operation & CLOCK_REALTIME)
    if realtime and command not in _CAN_REALTIME:
        raise LinuxError(E.ENOSYS)
    if command in (FUTEX_WAIT, FUTEX_WAIT_BITSET):
        bitset = value3 if command == FUTEX_WAIT_BITSET else MATCH_ANY
        return _wait(t, address, shared, value, bitset, timeout, relative=command == FUTEX_WAIT, realtime=realtime)
    if command == FUTEX_WAKE_BITSET:
        if not value3:
            raise LinuxError(E.EINVAL)
        return core.wake(t.kernel, key_of(t, address, shared=shared), max(_s32(value), 1), value3)
    if command in (FUTEX_REQUEUE, FUTEX_CMP_REQUEUE):
        compare = command == FUTEX_CMP_REQUEUE
        return _requeue(t, address, address2, shared, value, timeout, value3, compare=compare)
    if command == FUTEX_WAKE_OP:
        return _wake_op(t, address, address2, shared, value, timeout, value3)
    if command in (FUTEX_LOCK_PI, FUTEX_LOCK_PI2):
        return _lock_pi(t, address, shared, timeout, realtime=realtime or command == FUTEX_LOCK_PI)
    if command == FUTEX_TRYLOCK_PI:
        return _try_lock_pi(t, address, shared)
    if command == FUTEX_UNLOCK_PI:
        return _unlock_pi(t, address, shared)
    if command == FUTEX_WAIT_REQUEUE_PI:
        return _wait_requeue_pi(t, address, address2, shared, value, timeout, value3, realtime=realtime)
    if command == FUTEX_CMP_REQUEUE_PI:
        return _cmp_requeue_pi(t, address, address2, shared, value, timeout, value3)
    raise LinuxError(E.ENOSYS)


def _s32(value: int) -> int:
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def _deadline(t: Task, timeout: int, *, relative: bool, realtime: bool) -> int | None:
    """The monotonic deadline of a call that starts now; None without a timeout."""
    if not timeout:
        return None
    moment = t.memory.read_timespec(timeout)
    clock = t.kernel.clock
    if relative:
        return clock.monotonic_ns() + moment
    return clock.realtime_to_monotonic(moment) if realtime else moment


def _sleep(t: Task, waiter: Waiter) -> Wait:
    """How to wait until `waiter` is woken; ETIMEDOUT at the call's deadline."""
    deadline_ns = t.call.deadline_ns
    if deadline_ns is None:
        return FOREVER
    if t.kernel.clock.monotonic_ns() >= deadline_ns:
        t.kernel.futexes.remove(waiter)
        raise LinuxError(E.ETIMEDOUT)
    return Wait("futex_wait", deadline_ns=deadline_ns, restart=E.ERESTART_RESTARTBLOCK, interrupted=_leave)


def _leave(t: Task) -> int | None:
    """A signal ends the wait: sleep no more; a timed wait is taken up by restart_syscall with its old deadline."""
    call = t.call
    waiter = call.memo
    if isinstance(waiter, Waiter):
        t.kernel.futexes.remove(waiter)
        if waiter.woken:
            return 0
    if call.deadline_ns is not None:
        deadline, args = call.deadline_ns, call.args

        def again(task: Task) -> int | Wait:
            if task.call.memo is None:
                task.call.deadline_ns = deadline
            return _wait_again(task, args)

        call.restart = again
    return None


FOREVER = Wait("futex_wait", interrupted=_leave)


def _wait_again(t: Task, args: tuple[int, ...]) -> int | Wait:
    operation = _s32(args[1])
    command = operation & ~(PRIVATE | CLOCK_REALTIME)
    bitset = args[5] & 0xFFFFFFFF if command == FUTEX_WAIT_BITSET else MATCH_ANY
    return _wait(t, args[0], not operation & PRIVATE, args[2] & 0xFFFFFFFF, bitset)


def _wait(
    t: Task,
    address: int,
    shared: bool,
    value: int,
    bitset: int = MATCH_ANY,
    timeout: int = 0,
    *,
    relative: bool = False,
    realtime: bool = False,
) -> int | Wait:
    call = t.call
    waiter = call.memo
    if waiter is None:
        if not bitset:
            raise LinuxError(E.EINVAL)
        if timeout:
            call.deadline_ns = _deadline(t, timeout, relative=relative, realtime=realtime)
        key = key_of(t, address, shared=shared)
        if t.memory.read_u32(address) != value:
            raise LinuxError(E.EAGAIN)
        call.memo = waiter = Waiter(t, key, bitset)
        t.kernel.futexes.add(waiter)
    return 0 if waiter.woken else _sleep(t, waiter)


def _requeue(
    t: Task, source: int, target: int, shared: bool, wake: int, move: int, expected: int, *, compare: bool
) -> int:
    wake_count, move_count = _s32(wake), _s32(move)
    if wake_count < 0 or move_count < 0:
        raise LinuxError(E.EINVAL)
    first, second = key_of(t, source, shared=shared), key_of(t, target, shared=shared)
    if compare and t.memory.read_u32(source) != expected:
        raise LinuxError(E.EAGAIN)
    woken, moved = core.requeue(t.kernel, first, second, wake_count, move_count)
    return woken + moved if compare else woken


def _wake_op(t: Task, address: int, address2: int, shared: bool, wake: int, wake2: int, encoded: int) -> int:
    first, second = key_of(t, address, shared=shared), key_of(t, address2, shared=shared)
    kind, comparison = encoded >> 28 & 7, encoded >> 24 & 15
    argument, compared = _s12(encoded >> 12), _s12(encoded)
    if encoded >> 28 & 8:
        if not 0 <= argument <= 31:
            argument &= 31
        argument = 1 << argument
    old = t.memory.read_s32(address2)
    match kind:
        case 0:
            new = argument
        case 1:
            new = old + argument
        case 2:
            new = old | argument
        case 3:
            new = old & ~argument
        case 4:
            new = old ^ argument
        case _:
            raise LinuxError(E.ENOSYS)
    t.memory.write_u32(address2, new)
    tests = (old == compared, old != compared, old < compared, old <= compared, old > compared, old >= compared)
    if comparison >= len(tests):
        raise LinuxError(E.ENOSYS)
    woken = core.wake(t.kernel, first, _s32(wake))
    if tests[comparison]:
        woken += core.wake(t.kernel, second, _s32(wake2))
    return woken


def _s12(value: int) -> int:
    return (value & 0xFFF ^ 0x800) - 0x800


# -- priority inheritance: with one CPU and no priorities, an ordinary queue with ownership in the word ---------------


def _take_pi(t: Task, address: int) -> bool:
    """Take the lock if it is free; EDEADLK if it is ours, ESRCH if its owner is gone."""
    word = t.memory.read_u32(address)
    owner = word & FUTEX_TID_MASK
    if owner == t.tid:
        raise LinuxError(E.EDEADLK)
    if not owner:
        t.memory.write_u32(address, t.tid | (word & (FUTEX_OWNER_DIED | FUTEX_WAITERS)))
        return True
    holder = t.kernel.tasks.find(owner)
    if holder is None or holder.state in (TaskState.ZOMBIE, TaskState.DEAD):
        raise LinuxError(E.ESRCH)
    return False


def _lock_pi(t: Task, address: int, shared: bool, timeout: int, *, realtime: bool) -> int:
    waiter = t.call.memo
    if waiter is None:
        if timeout:
            t.call.deadline_ns = _deadline(t, timeout, relative=False, realtime=realtime)
        key = key_of(t, address, shared=shared)
        if _take_pi(t, address):
            return 0
        t.memory.write_u32(address, t.memory.read_u32(address) | FUTEX_WAITERS)
        t.call.memo = waiter = Waiter(t, key, MATCH_ANY, pi_address=address)
        t.kernel.futexes.add(waiter)
    if waiter.woken:
        return 0
    return _sleep_pi(t, waiter, "futex_lock_pi")


def _sleep_pi(t: Task, waiter: Waiter, what: str) -> int:
    """As `_sleep`; a signal never ends the call, which starts again after the handler."""
    deadline_ns = t.call.deadline_ns
    if deadline_ns is not None and t.kernel.clock.monotonic_ns() >= deadline_ns:
        t.kernel.futexes.remove(waiter)
        raise LinuxError(E.ETIMEDOUT)
    raise Block(Wait(what, deadline_ns=deadline_ns, restart=E.ERESTARTNOINTR, interrupted=_leave_pi))


def _leave_pi(t: Task) -> int | None:
    waiter = t.call.memo
    if isinstance(waiter, Waiter):
        if waiter.woken:
            return 0
        t.kernel.futexes.remove(waiter)
    return None


def _try_lock_pi(t: Task, address: int, shared: bool) -> int:
    key_of(t, address, shared=shared)
    if not _take_pi(t, address):
        raise LinuxError(E.EAGAIN)
    return 0


def _unlock_pi(t: Task, address: int, shared: bool) -> int:
    key = key_of(t, address, shared=shared)
    word = t.memory.read_u32(address)
    if word & FUTEX_TID_MASK != t.tid:
        raise LinuxError(E.EPERM)
    if not core.hand_over_pi(t.kernel, t, key, address):
        t.memory.write_u32(address, 0)
    return 0


def _wait_requeue_pi(
    t: Task, address: int, target: int, shared: bool, value: int, timeout: int, bitset: int, *, realtime: bool
) -> int:
    waiter = t.call.memo
    if waiter is None:
        if not bitset or address == target:
            raise LinuxError(E.EINVAL)
        if timeout:
            t.call.deadline_ns = _deadline(t, timeout, relative=False, realtime=realtime)
        key = key_of(t, address, shared=shared)
        key2 = key_of(t, target, shared=shared)
        if t.memory.read_u32(address) != value:
            raise LinuxError(E.EAGAIN)
        t.call.memo = waiter = Waiter(t, key, bitset, requeue_pi_key=key2)
        t.kernel.futexes.add(waiter)
    if waiter.woken:
        return 0
    return _sleep_pi(t, waiter, "futex_wait_requeue_pi")


def _cmp_requeue_pi(t: Task, source: int, target: int, shared: bool, wake: int, move: int, expected: int) -> int:
    if wake != 1 or source == target:
        raise LinuxError(E.EINVAL)
    first, second = key_of(t, source, shared=shared), key_of(t, target, shared=shared)
    if t.memory.read_u32(source) != expected:
        raise LinuxError(E.EAGAIN)
    futexes = t.kernel.futexes
    done = 0
    for waiter in tuple(futexes.queues.get(first, ()))[: _s32(move) + 1]:
        if waiter.requeue_pi_key != second:
            raise LinuxError(E.EINVAL)
        futexes.remove(waiter)
        waiter.key, waiter.pi_address, waiter.requeue_pi_key = second, target, None
        word = t.memory.read_u32(target)
        if not word & FUTEX_TID_MASK:
            t.memory.write_u32(target, waiter.task.tid | (word & FUTEX_OWNER_DIED))
            waiter.woken = True
            t.kernel.scheduler.wake(waiter.task)
        else:
            t.memory.write_u32(target, word | FUTEX_WAITERS)
            futexes.add(waiter)
        done += 1
    return done


# -- futex_waitv -----------------------------------------------------------------------------------------------------

WAITV_MAX = 128
FUTEX2_SIZE_U32 = 2


@syscall("futex_waitv")
def futex_waitv(t: Task, vector: Ptr, count: UInt, flags: UInt, timeout: Ptr, clock: Int) -> int:
    """futex_waitv(2): wait on several words; the index of one that was woken."""
    waiters = t.call.memo
    if waiters is None:
        if flags or not 1 <= count <= WAITV_MAX or not vector:
            raise LinuxError(E.EINVAL)
        if timeout:
            if clock not in (0, 1):
                raise LinuxError(E.EINVAL)
            t.call.deadline_ns = _deadline(t, timeout, relative=False, realtime=clock == 0)
        waiters = _vector(t, vector, count)
        t.call.memo = waiters
        for waiter in waiters:
            t.kernel.futexes.add(waiter)
    for waiter in waiters:
        if waiter.woken:
            core.abandon(t.kernel, t)
            return int(waiter.index)
    if t.call.deadline_ns is not None and t.kernel.clock.monotonic_ns() >= t.call.deadline_ns:
        core.abandon(t.kernel, t)
        raise LinuxError(E.ETIMEDOUT)
    raise Block(Wait("futex_wait_multiple", deadline_ns=t.call.deadline_ns, interrupted=_leave_vector))


def _leave_vector(t: Task) -> int | None:
    woken = [waiter.index for waiter in t.call.memo if waiter.woken]
    core.abandon(t.kernel, t)
    return woken[0] if woken else None


def _vector(t: Task, vector: int, count: int) -> list[Waiter]:
    waiters = []
    for index in range(count):
        value, address, flags, reserved = t.memory.read_struct(vector + 24 * index, "QQII")
        if reserved or flags & ~(FUTEX2_SIZE_U32 | PRIVATE) or flags & 3 != FUTEX2_SIZE_U32:
            raise LinuxError(E.EINVAL)
        key = key_of(t, address, shared=not flags & PRIVATE)
        if t.memory.read_u32(address) != value & 0xFFFFFFFF:
            raise LinuxError(E.EAGAIN)
        waiters.append(Waiter(t, key, MATCH_ANY, index=index))
    return waiters


@syscall("restart_syscall")
def restart_syscall(t: Task) -> int | Wait:
    """restart_syscall(2): go on with what a stop interrupted."""
    restart = t.call.restart
    if restart is None:
        raise LinuxError(E.EINTR)
    result: int | Wait = restart(t)
    return result
