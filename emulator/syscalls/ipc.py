"""System V IPC calls.

Sources: man 2 shmget, shmop, shmctl, semget, semop, semctl, msgget, msgop, msgctl; <linux/shm.h>, <linux/sem.h>,
<linux/msg.h>, <asm-generic/{ipc,shm,sem,msg}buf.h>.
"""

from __future__ import annotations

from collections.abc import Callable

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE
from emulator.abi.mman import Map
from emulator.errors import LinuxError
from emulator.kernel.ipc import (
    IPC_CREAT,
    IPC_EXCL,
    IPC_NOWAIT,
    IPC_PRIVATE,
    SEMVMX,
    SHM_DEST,
    SHM_LOCKED,
    Ids,
    IpcObject,
    Item,
    MessageQueue,
    Segment,
    SemaphoreSet,
    ipc_of,
    new_segment,
    owned,
)
from emulator.kernel.tasks import Task
from emulator.kernel.waits import Block, Wait
from emulator.syscalls.registry import Int, Long, Ptr, Size, UInt, syscall

IPC_RMID, IPC_SET, IPC_STAT, IPC_INFO, IPC_64 = 0, 1, 2, 3, 0x100
SHM_LOCK, SHM_UNLOCK, SHM_STAT, SHM_INFO, SHM_STAT_ANY = 11, 12, 13, 14, 15
SHM_RDONLY, SHM_RND, SHM_REMAP, SHM_EXEC = 0o10000, 0o20000, 0o40000, 0o100000
GETPID, GETVAL, GETALL, GETNCNT, GETZCNT, SETVAL, SETALL, SEM_STAT, SEM_INFO, SEM_STAT_ANY = range(11, 21)
SEM_UNDO = 0x1000
_MANY = 1 << 16  # semaphores before their memory is looked at
_SEMAPHORE_SIZE = 64  # sizeof(struct sem), a cache line
SHM_HUGETLB, CAP_IPC_LOCK = 0o4000, 14
MSG_STAT, MSG_INFO, MSG_STAT_ANY, MSG_NOERROR, MSG_EXCEPT, MSG_COPY = 11, 12, 13, 0o10000, 0o20000, 0o40000
_PERM = "iIIIIIHH4xQQ"


def _now(t: Task) -> int:
    return t.kernel.clock.realtime_ns() // 1_000_000_000


def _get(t: Task, ids: Ids[Item], key: int, flags: int, make: Callable[[], Item], fits: Callable[[Item], None]) -> int:
    """ipcget: find by key or make a new one."""
    found = ids.by_key(key)
    if found is None:
        if key != IPC_PRIVATE and not flags & IPC_CREAT:
            raise LinuxError(E.ENOENT)
        item = ids.add(make())
        item.ctime = _now(t)
        return item.ident
    if flags & IPC_CREAT and flags & IPC_EXCL:
        raise LinuxError(E.EEXIST)
    fits(found)
    found.check(t, (flags >> 6 | flags >> 3 | flags) & 7)
    return found.ident


def _perm(item: IpcObject, extra_mode: int = 0) -> tuple[int, ...]:
    mode = item.mode | extra_mode
    return (item.key, item.uid, item.gid, item.cuid, item.cgid, mode, item.sequence, 0, 0, 0)


def _set_owner(t: Task, item: IpcObject, address: int) -> None:
    """IPC_SET's share of the permission."""
    _, uid, gid, _, _, mode, *_ = t.memory.read_struct(address, _PERM)
    item.check_owner(t)
    item.uid, item.gid, item.mode = uid, gid, item.mode & ~0o777 | mode & 0o777
    item.ctime = _now(t)


# -- shared memory ---------------------------------------------------------------------------------------------------


@syscall("shmget")
def shmget(t: Task, key: Int, size: Size, shmflg: UInt) -> int:
    """shmget(2)."""
    ids = ipc_of(t.kernel).segments

    def make() -> Segment:
        if not 1 <= size <= t.kernel.sysctls.number("kernel/shmmax"):
            raise LinuxError(E.EINVAL)
        if size > t.kernel.host.available_memory() and not shmflg & 0o10000:
            raise LinuxError(E.ENOMEM)
        limit = t.kernel.config.memory_limit
        if limit is not None and sum(item.size for item in ids.items.values()) + size > limit:
            raise LinuxError(E.ENOMEM)
        if shmflg & SHM_HUGETLB:  # no huge pages are reserved here
            raise LinuxError(E.ENOMEM if t.credentials.capable(CAP_IPC_LOCK) else E.EPERM)
        segment = new_segment(t, key, size, shmflg)
        segment.owner = ids
        return segment

    def fits(found: Segment) -> None:
        if size > found.size:
            raise LinuxError(E.EINVAL)

    return _get(t, ids, key, shmflg, make, fits)


@syscall("shmat")
def shmat(t: Task, shmid: Int, shmaddr: Ptr, shmflg: UInt) -> int:
    """shmat(2)."""
    if shmid < 0:
        raise LinuxError(E.EINVAL)
    address, flags = shmaddr, int(Map.SHARED)
    if address:
        if address % PAGE_SIZE:
            if not shmflg & SHM_RND:
                raise LinuxError(E.EINVAL)
            address -= address % PAGE_SIZE
            if not address and shmflg & SHM_REMAP:
                raise LinuxError(E.EINVAL)
        flags |= int(Map.FIXED)
    elif shmflg & SHM_REMAP:
        raise LinuxError(E.EINVAL)
    segment = ipc_of(t.kernel).segments.get(shmid)
    prot = 1 if shmflg & SHM_RDONLY else 3
    segment.check(t, (4 if shmflg & SHM_RDONLY else 6) | (1 if shmflg & SHM_EXEC else 0))
    if shmflg & SHM_EXEC:
        prot |= 4
    if segment.file is None:
        raise LinuxError(E.EIDRM)
    if address and not shmflg & SHM_REMAP and t.space.vmas.intersects(address, address + segment.size):
        raise LinuxError(E.EINVAL)
    where = t.space.mmap(address, segment.size, prot, flags, segment.file, 0)
    vma = t.space.vmas.at(where)
    if vma is not None:
        vma.segment = segment
    segment.attach()
    segment.atime, segment.lpid = _now(t), t.pid
    return where


@syscall("shmdt")
def shmdt(t: Task, shmaddr: Ptr) -> None:
    """shmdt(2): every piece of the mapping that begins there."""
    first = next(
        (vma for vma in t.space.vmas if vma.segment and vma.start - vma.page_offset * PAGE_SIZE == shmaddr), None
    )
    if shmaddr % PAGE_SIZE or first is None or not isinstance(first.segment, Segment):
        raise LinuxError(E.EINVAL)
    segment = first.segment
    segment.dtime, segment.lpid = _now(t), t.pid
    for vma in list(t.space.vmas):
        if vma.segment is segment and vma.start - vma.page_offset * PAGE_SIZE == shmaddr:
            t.space.munmap(vma.start, vma.length)


def _segment_mode(segment: Segment) -> int:
    return (SHM_DEST if segment.removed else 0) | (SHM_LOCKED if segment.locked else 0)


@syscall("shmctl")
def shmctl(t: Task, shmid: Int, cmd: UInt, buf: Ptr) -> int:
    """shmctl(2)."""
    ids = ipc_of(t.kernel).segments
    cmd &= ~IPC_64
    match cmd:
        case _ if cmd == IPC_INFO:
            largest, ids_limit, pages_limit = (
                t.kernel.sysctls.number("kernel/" + name) for name in ("shmmax", "shmmni", "shmall")
            )
            t.memory.write_struct(buf, "QQQQQ32x", largest, 1, ids_limit, ids_limit, pages_limit)
            return ids.highest()
        case _ if cmd == SHM_INFO:
            pages = sum(-(-item.size // PAGE_SIZE) for item in ids.items.values())
            resident = sum(item.resident() for item in ids.items.values()) // PAGE_SIZE
            t.memory.write_struct(buf, "i4xQQQQQ", len(ids.items), pages, resident, 0, 0, 0)
            return ids.highest()
    if shmid < 0:
        raise LinuxError(E.EINVAL)
    match cmd:
        case _ if cmd in (IPC_STAT, SHM_STAT, SHM_STAT_ANY):
            segment = ids.get(shmid) if cmd == IPC_STAT else ids.at_index(shmid)
            if cmd != SHM_STAT_ANY:
                segment.check(t, 4)
            t.memory.write_struct(
                buf, _PERM + "QqqqiiQ16x", *_perm(segment, _segment_mode(segment)), segment.size,
                segment.atime, segment.dtime, segment.ctime, segment.cpid, segment.lpid, segment.attached,
            )  # fmt: skip
            return 0 if cmd == IPC_STAT else segment.ident
        case _ if cmd == IPC_SET:
            _set_owner(t, ids.get(shmid), buf)
        case _ if cmd == IPC_RMID:
            segment = ids.get(shmid)
            segment.check_owner(t)
            if segment.attached > 0:
                ids.withdraw(segment)
            else:
                segment.removed = True
                segment.destroy()
        case _ if cmd in (SHM_LOCK, SHM_UNLOCK):
            segment = ids.get(shmid)
            segment.check_owner(t)
            segment.locked = cmd == SHM_LOCK
        case _:
            raise LinuxError(E.EINVAL)
    return 0


# -- semaphores ------------------------------------------------------------------------------------------------------


@syscall("semget")
def semget(t: Task, key: Int, nsems: Int, semflg: UInt) -> int:
    """semget(2)."""
    if not 0 <= nsems <= t.kernel.sysctls.numbers("kernel/sem")[0]:
        raise LinuxError(E.EINVAL)

    def make() -> SemaphoreSet:
        if not nsems:
            raise LinuxError(E.EINVAL)
        used = ipc_of(t.kernel).semaphores.used + nsems
        if used > t.kernel.sysctls.numbers("kernel/sem")[1]:
            raise LinuxError(E.ENOSPC)
        if used > _MANY and used * _SEMAPHORE_SIZE > (t.kernel.config.memory_limit or t.kernel.host.available_memory()):
            raise LinuxError(E.ENOMEM)
        return SemaphoreSet(**owned(t, key, semflg), values=[0] * nsems, pids=[0] * nsems)

    def fits(found: SemaphoreSet) -> None:
        if nsems > len(found.values):
            raise LinuxError(E.EINVAL)

    return _get(t, ipc_of(t.kernel).semaphores, key, semflg, make, fits)


def _attempt(sems: SemaphoreSet, operations: list[tuple[int, int, int]]) -> tuple[int, int, int] | None:
    """Do all, or nothing and return the operation that has to wait (perform_atomic_semop)."""
    values = sems.values[:]
    for operation in operations:
        number, change, _ = operation
        if change == 0:
            if values[number]:
                return operation
        elif values[number] + change < 0:
            return operation
        elif values[number] + change > SEMVMX:
            raise LinuxError(E.ERANGE)
        values[number] += change
    sems.values = values
    return None


@syscall("semop")
def semop(t: Task, semid: Int, sops: Ptr, nsops: UInt) -> None:
    """semop(2)."""
    semtimedop(t, semid, sops, nsops, 0)


@syscall("semtimedop")
def semtimedop(t: Task, semid: Int, sops: Ptr, nsops: UInt, timeout: Ptr) -> None:
    """semtimedop(2)."""
    if timeout and t.call.deadline_ns is None:
        t.call.deadline_ns = t.kernel.clock.monotonic_ns() + t.memory.read_timespec(timeout)
    if nsops < 1 or semid < 0:
        raise LinuxError(E.EINVAL)
    if nsops > t.kernel.sysctls.numbers("kernel/sem")[2]:
        raise LinuxError(E.E2BIG)
    flat = t.memory.read_struct(sops, "Hhh" * nsops)
    operations = list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
    semaphores = ipc_of(t.kernel).semaphores
    waited = isinstance(t.call.memo, SemaphoreSet)
    if waited and t.call.memo.removed:
        raise LinuxError(E.EIDRM)
    sems = semaphores.get(semid)
    if any(number >= len(sems.values) for number, _, _ in operations):
        raise LinuxError(E.EFBIG)
    sems.check(t, 2 if any(change for _, change, _ in operations) else 4)
    serial = t.uid.serial
    sems.waiters.pop(serial, None)
    stuck = _attempt(sems, operations)
    if stuck is None:
        sems.otime = _now(t)
        for number, change, flags in operations:
            sems.pids[number] = t.pid
            if flags & SEM_UNDO and change:
                semaphores.adjust(t.group, sems, number, change)
        if any(change for _, change, _ in operations):
            sems.changed.wake()
        return
    number, change, flags = stuck
    if flags & IPC_NOWAIT:
        raise LinuxError(E.EAGAIN)
    deadline = t.call.deadline_ns
    if deadline is not None and t.kernel.clock.monotonic_ns() >= deadline:
        raise LinuxError(E.EAGAIN)
    sems.waiters[serial] = number, change == 0
    t.call.memo = sems

    def given_up(_: Task) -> int | None:
        sems.waiters.pop(serial, None)
        return None

    raise Block(Wait("semtimedop", (sems.changed,), (), deadline, restart=E.EINTR, interrupted=given_up))


@syscall("semctl")
def semctl(t: Task, semid: Int, semnum: Int, cmd: UInt, arg: Size) -> int:
    """semctl(2)."""
    semaphores = ipc_of(t.kernel).semaphores
    cmd &= ~IPC_64
    if cmd in (IPC_INFO, SEM_INFO):
        per_set, most, operations, sets = t.kernel.sysctls.numbers("kernel/sem")
        used = len(semaphores.items) if cmd == SEM_INFO else 20
        total = sum(len(item.values) for item in semaphores.items.values()) if cmd == SEM_INFO else SEMVMX
        t.memory.write_struct(arg, "10i", most, sets, most, most, per_set, operations, operations, used, SEMVMX, total)
        return semaphores.highest()
    if semid < 0:
        raise LinuxError(E.EINVAL)
    sems = semaphores.at_index(semid) if cmd in (SEM_STAT, SEM_STAT_ANY) else semaphores.get(semid)
    match cmd:
        case _ if cmd in (IPC_STAT, SEM_STAT, SEM_STAT_ANY):
            if cmd != SEM_STAT_ANY:
                sems.check(t, 4)
            layout = _PERM + t.arch.abi.semid_ds
            t.memory.write_struct(arg, layout, *_perm(sems), sems.otime, sems.ctime, len(sems.values))
            return 0 if cmd == IPC_STAT else sems.ident
        case _ if cmd == IPC_SET:
            _set_owner(t, sems, arg)
            return 0
        case _ if cmd == IPC_RMID:
            sems.check_owner(t)
            semaphores.forget(sems)
            semaphores.remove(sems)
            sems.changed.wake()
            return 0
        case _ if cmd == GETALL:
            sems.check(t, 4)
            t.memory.write_struct(arg, "H" * len(sems.values), *sems.values)
            return 0
        case _ if cmd == SETALL:
            sems.check(t, 2)
            values = list(t.memory.read_struct(arg, "H" * len(sems.values)))
            if max(values) > SEMVMX:
                raise LinuxError(E.ERANGE)
            sems.values, sems.pids = values, [t.pid] * len(values)
            sems.ctime = _now(t)
            semaphores.forget(sems)
            sems.changed.wake()
            return 0
    if cmd not in (GETPID, GETVAL, GETNCNT, GETZCNT, SETVAL) or not 0 <= semnum < len(sems.values):
        raise LinuxError(E.EINVAL)
    if cmd == SETVAL:
        value = (arg & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
        if not 0 <= value <= SEMVMX:
            raise LinuxError(E.ERANGE)
        sems.check(t, 2)
        sems.values[semnum], sems.pids[semnum], sems.ctime = value, t.pid, _now(t)
        semaphores.forget(sems, semnum)
        sems.changed.wake()
        return 0
    sems.check(t, 4)
    match cmd:
        case _ if cmd == GETVAL:
            return sems.values[semnum]
        case _ if cmd == GETPID:
            return sems.pids[semnum]
        case _:
            return sems.waiting(semnum, cmd == GETZCNT)


# -- message queues --------------------------------------------------------------------------------------------------


@syscall("msgget")
def msgget(t: Task, key: Int, msgflg: UInt) -> int:
    """msgget(2)."""

    def make() -> MessageQueue:
        return MessageQueue(**owned(t, key, msgflg), limit=t.kernel.sysctls.number("kernel/msgmnb"))

    return _get(t, ipc_of(t.kernel).queues, key, msgflg, make, lambda _: None)


def _queue(t: Task, msqid: int) -> MessageQueue:
    if isinstance(t.call.memo, MessageQueue) and t.call.memo.removed:
        raise LinuxError(E.EIDRM)
    return ipc_of(t.kernel).queues.get(msqid)


@syscall("msgsnd")
def msgsnd(t: Task, msqid: Int, msgp: Ptr, msgsz: Size, msgflg: UInt) -> None:
    """msgsnd(2)."""
    kind = t.memory.read_s64(msgp) if t.arch.bits == 64 else t.memory.read_s32(msgp)
    if msgsz > t.kernel.sysctls.number("kernel/msgmax") or msqid < 0 or kind < 1:
        raise LinuxError(E.EINVAL)
    text = t.memory.read(msgp + t.arch.pointer_size, msgsz)
    queue = _queue(t, msqid)
    queue.check(t, 2)
    if queue.size + msgsz > queue.limit or len(queue.messages) + 1 > queue.limit:
        if msgflg & IPC_NOWAIT:
            raise LinuxError(E.EAGAIN)
        t.call.memo = queue
        raise Block(Wait("do_msgsnd", (queue.changed,), restart=E.EINTR))
    queue.messages.append((kind, text))
    queue.stime, queue.lspid = _now(t), t.pid
    queue.changed.wake()


def _choose(queue: MessageQueue, kind: int, flags: int) -> int | None:
    """The index of the message msgrcv's type asks for."""
    if flags & MSG_COPY:
        return kind if 0 <= kind < len(queue.messages) else None
    if kind == 0:
        return 0 if queue.messages else None
    if kind < 0:
        fitting = [(k, index) for index, (k, _) in enumerate(queue.messages) if k <= -kind]
        return min(fitting)[1] if fitting else None
    for index, (found, _) in enumerate(queue.messages):
        if (found != kind) if flags & MSG_EXCEPT else (found == kind):
            return index
    return None


@syscall("msgrcv")
def msgrcv(t: Task, msqid: Int, msgp: Ptr, msgsz: Size, msgtyp: Long, msgflg: UInt) -> int:
    """msgrcv(2)."""
    if msqid < 0 or msgsz >= 1 << (t.arch.bits - 1):
        raise LinuxError(E.EINVAL)
    if msgflg & MSG_COPY and (msgflg & MSG_EXCEPT or not msgflg & IPC_NOWAIT):
        raise LinuxError(E.EINVAL)
    queue = _queue(t, msqid)
    queue.check(t, 4)
    index = _choose(queue, msgtyp, msgflg)
    if index is None:
        if msgflg & IPC_NOWAIT:
            raise LinuxError(E.ENOMSG)
        t.call.memo = queue
        raise Block(Wait("do_msgrcv", (queue.changed,), restart=E.EINTR))
    kind, text = queue.messages[index]
    if len(text) > msgsz:
        if not msgflg & MSG_NOERROR:
            raise LinuxError(E.E2BIG)
        text = text[:msgsz]
    if not msgflg & MSG_COPY:
        del queue.messages[index]
        queue.rtime, queue.lrpid = _now(t), t.pid
        queue.changed.wake()
    t.memory.write_ptr(msgp, kind)
    t.memory.write(msgp + t.arch.pointer_size, text)
    return len(text)


@syscall("msgctl")
def msgctl(t: Task, msqid: Int, cmd: UInt, buf: Ptr) -> int:
    """msgctl(2)."""
    ids = ipc_of(t.kernel).queues
    cmd &= ~IPC_64
    if cmd in (IPC_INFO, MSG_INFO):
        queues = ids.items.values()
        longest, most_bytes, most = (t.kernel.sysctls.number("kernel/" + n) for n in ("msgmax", "msgmnb", "msgmni"))
        if cmd == MSG_INFO:
            counts = (len(queues), sum(len(q.messages) for q in queues), sum(q.size for q in queues))
        else:
            counts = (512000, most_bytes, most_bytes)
        pool, maps, tables = counts
        t.memory.write_struct(buf, "7iH2x", pool, maps, longest, most_bytes, most, 16, tables, 0xFFFF)
        return ids.highest()
    if msqid < 0:
        raise LinuxError(E.EINVAL)
    match cmd:
        case _ if cmd in (IPC_STAT, MSG_STAT, MSG_STAT_ANY):
            queue = ids.get(msqid) if cmd == IPC_STAT else ids.at_index(msqid)
            if cmd != MSG_STAT_ANY:
                queue.check(t, 4)
            t.memory.write_struct(
                buf, _PERM + "qqqQQQii16x", *_perm(queue), queue.stime, queue.rtime, queue.ctime, queue.size,
                len(queue.messages), queue.limit, queue.lspid, queue.lrpid,
            )  # fmt: skip
            return 0 if cmd == IPC_STAT else queue.ident
        case _ if cmd == IPC_SET:
            queue = ids.get(msqid)
            limit = t.memory.read_u64(buf + 48 + 40)
            if limit > t.kernel.sysctls.number("kernel/msgmnb") and not t.credentials.capable(24):
                raise LinuxError(E.EPERM)
            _set_owner(t, queue, buf)
            queue.limit = limit
            queue.changed.wake()
        case _ if cmd == IPC_RMID:
            queue = ids.get(msqid)
            queue.check_owner(t)
            ids.remove(queue)
            queue.changed.wake()
        case _:
            raise LinuxError(E.EINVAL)
    return 0
