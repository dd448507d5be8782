"""System V IPC: shared memory, semaphores, message queues.

Rule: the objects are the machine's own, never the host's; a task that waits for one is blocked data, and an object
that is removed wakes everybody, who then find it gone (EIDRM).
Sources: man 7 sysvipc, man 2 shmget, semop, msgop; ipc/util.c, ipc/sem.c, ipc/msg.c, ipc/shm.c.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from emulator.abi.errno import E
from emulator.abi.fcntl import O
from emulator.errors import LinuxError
from emulator.kernel.files.regular import RegularFile
from emulator.kernel.waits import WaitQueue

if TYPE_CHECKING:
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.sysctl import Sysctls
    from emulator.kernel.tasks import Task
    from emulator.kernel.thread_group import ThreadGroup

IPC_CREAT, IPC_EXCL, IPC_NOWAIT, IPC_PRIVATE = 0o1000, 0o2000, 0o4000, 0
SEMVMX = 32767
SEQUENCE = 32768  # IPCMNI: an id is sequence * this + index
MIN_CYCLE = 64
CAP_IPC_OWNER = 15
SHM_DEST, SHM_LOCKED = 0o1000, 0o2000


@dataclass(slots=True, eq=False)
class IpcObject:
    """struct kern_ipc_perm."""

    key: int
    uid: int
    gid: int
    cuid: int
    cgid: int
    mode: int
    index: int = 0
    sequence: int = 0
    removed: bool = False
    ctime: int = 0

    @property
    def ident(self) -> int:
        """The id programs use."""
        return self.sequence * SEQUENCE + self.index

    def check(self, t: Task, wanted: int) -> None:
        """ipcperms: `wanted` is permission bits in the lowest place (4 read, 2 write)."""
        who = t.credentials
        mode = self.mode
        if who.euid in (self.uid, self.cuid):
            mode >>= 6
        elif {who.egid, *who.groups} & {self.gid, self.cgid}:
            mode >>= 3
        if wanted & ~mode & 7 and not who.capable(CAP_IPC_OWNER):
            raise LinuxError(E.EACCES)

    def check_owner(self, t: Task) -> None:
        """IPC_SET and IPC_RMID are for the owner and the creator."""
        if t.credentials.euid not in (self.uid, self.cuid) and not t.credentials.capable(21):
            raise LinuxError(E.EPERM)


Item = TypeVar("Item", bound=IpcObject)


class Ids(Generic[Item]):
    """One kind of object: by id and by key.  `setting` says how many there may be, `next_id` which id comes next."""

    def __init__(self, sysctls: Sysctls, setting: str, position: int, next_id: str) -> None:
        self._sysctls = sysctls
        self._setting, self._position, self._next_id = setting, position, next_id
        self.items: dict[int, Item] = {}  # by index
        self._keys: dict[int, Item] = {}
        self._sequence = 0
        self._cursor = 0  # where the search for a free index goes on
        self._last = -1

    @property
    def limit(self) -> int:
        """How many objects there may be."""
        return self._sysctls.numbers(self._setting)[self._position]

    def by_key(self, key: int) -> Item | None:
        """None for IPC_PRIVATE and for unknown keys."""
        found = self._keys.get(key)
        return found if found is not None and found.key == key != IPC_PRIVATE else None

    def add(self, item: Item) -> Item:
        """Enter a new object; ENOSPC when there are too many."""
        if len(self.items) >= self.limit:
            raise LinuxError(E.ENOSPC)
        wanted = self._sysctls.number(self._next_id)
        if wanted >= 0:
            item.index = next(n for n in count(wanted % SEQUENCE) if n not in self.items)
            item.sequence = wanted // SEQUENCE
            self._sysctls.store(self._next_id, b"-1")
        else:
            item.index = self._free_index()
            if item.index <= self._last:
                self._sequence = (self._sequence + 1) % (1 << 16)
            self._last, item.sequence = item.index, self._sequence
        self.items[item.index] = self._keys[item.key] = item
        return item

    def _free_index(self) -> int:
        """ipc_idr_alloc(): round and round, in a range that grows with the number of objects."""
        top = min(max(len(self.items) * 3 // 2, MIN_CYCLE), SEQUENCE)
        index = next((n for n in range(self._cursor, top) if n not in self.items), None)
        if index is None:
            index = next(n for n in count() if n not in self.items)
        self._cursor = index + 1
        return index

    def get(self, ident: int) -> Item:
        """EINVAL for an id that never was; EIDRM for one whose place another has taken."""
        if ident < 0:
            raise LinuxError(E.EINVAL)
        item = self.items.get(ident % SEQUENCE)
        if item is None:
            raise LinuxError(E.EINVAL)
        if item.sequence != ident // SEQUENCE:
            raise LinuxError(E.EIDRM)
        return item

    def at_index(self, index: int) -> Item:
        """For *_STAT, of which an id is as good."""
        item = self.items.get(index % SEQUENCE) if index >= 0 else None
        if item is None:
            raise LinuxError(E.EINVAL)
        return item

    def withdraw(self, item: Item) -> None:
        """IPC_RMID of what is still in use: its key can be had again, its id stays for who has it."""
        if self._keys.get(item.key) is item:
            del self._keys[item.key]
        item.removed, item.key = True, IPC_PRIVATE

    def remove(self, item: Item) -> None:
        """The id is gone, and will not come back soon."""
        item.removed = True
        self.items.pop(item.index, None)
        if self._keys.get(item.key) is item:
            del self._keys[item.key]

    def in_order(self) -> list[Item]:
        """By index."""
        return [self.items[index] for index in sorted(self.items)]

    def highest(self) -> int:
        """Highest index in use, 0 if none."""
        return max(self.items, default=0)


def owned(t: Task, key: int, mode: int) -> dict[str, Any]:
    """The fields of a new object's permission."""
    who = t.credentials
    return {"key": key, "uid": who.euid, "gid": who.egid, "cuid": who.euid, "cgid": who.egid, "mode": mode & 0o777}


# -- shared memory ---------------------------------------------------------------------------------------------------


class SegmentFile(RegularFile):
    """The memory of a segment: a host memfd, so that it can be mapped shared by every process."""

    __slots__ = ("label",)

    label: str

    def mmap_path(self) -> str:
        return self.label


@dataclass(slots=True, eq=False)
class Segment(IpcObject):
    """A shared-memory segment; attached mappings keep it after IPC_RMID."""

    size: int = 0
    file: SegmentFile | None = None
    attached: int = 0
    atime: int = 0
    dtime: int = 0
    cpid: int = 0
    lpid: int = 0
    locked: bool = False
    owner: Ids[Segment] | None = None

    def resident(self) -> int:
        """Bytes of it in memory."""
        return self.file.stat().st_blocks * 512 if self.file is not None else 0

    def attach(self) -> None:
        """One mapping more (shmat, fork, a split)."""
        self.attached += 1

    def detach(self) -> None:
        """One mapping less."""
        self.attached -= 1
        if self.removed and self.attached <= 0:
            self.destroy()

    def destroy(self) -> None:
        """Nobody can see it any more."""
        if self.owner is not None and self.owner.items.get(self.index) is self:
            self.owner.remove(self)
        file, self.file = self.file, None
        if file is not None:
            file.release()


def new_segment(t: Task, key: int, size: int, mode: int) -> Segment:
    """shmget's memory."""
    host, vfs = t.kernel.host, t.kernel.vfs
    fd = host.memfd(b"sysv", 0)
    try:
        host.ftruncate(fd, size)
    except LinuxError:
        host.close(fd)
        raise LinuxError(E.ENOMEM) from None
    file = SegmentFile(vfs.walker, fd, O.RDWR, vfs.locks)
    file.label = f"/SYSV{key & 0xFFFFFFFF:08x} (deleted)"
    file.retain()
    return Segment(**owned(t, key, mode), size=size, file=file, cpid=t.pid)


# -- semaphores ------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class SemaphoreSet(IpcObject):
    """A set: values, who changed each last, who waits."""

    values: list[int] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)
    otime: int = 0
    changed: WaitQueue = field(default_factory=WaitQueue)
    waiters: dict[int, tuple[int, bool]] = field(default_factory=dict)  # task serial -> (semaphore, for zero?)

    def waiting(self, number: int, zero: bool) -> int:
        """semncnt, semzcnt."""
        return list(self.waiters.values()).count((number, zero))


class Semaphores(Ids[SemaphoreSet]):
    """All sets, and what to undo when a process ends."""

    def __init__(self, sysctls: Sysctls) -> None:
        super().__init__(sysctls, "kernel/sem", 3, "kernel/sem_next_id")
        self.adjustments: dict[ThreadGroup, dict[SemaphoreSet, list[int]]] = {}

    @property
    def used(self) -> int:
        """How many semaphores there are in all sets: SEMMNS bounds it."""
        return sum(len(sems.values) for sems in self.items.values())

    def adjust(self, group: ThreadGroup, sems: SemaphoreSet, number: int, delta: int) -> None:
        """SEM_UNDO."""
        sets = self.adjustments.setdefault(group, {})
        sets.setdefault(sems, [0] * len(sems.values))[number] -= delta

    def forget(self, sems: SemaphoreSet, number: int | None = None) -> None:
        """SETVAL, SETALL and IPC_RMID clear adjustments."""
        for sets in self.adjustments.values():
            if sems not in sets:
                continue
            if number is None:
                del sets[sems]
            else:
                sets[sems][number] = 0

    def undo(self, group: ThreadGroup) -> None:
        """exit_sem."""
        for sems, deltas in self.adjustments.pop(group, {}).items():
            if sems.removed:
                continue
            for number, delta in enumerate(deltas):
                if delta:
                    sems.values[number] = min(max(sems.values[number] + delta, 0), SEMVMX)
                    sems.pids[number] = group.tgid
            sems.changed.wake()


# -- message queues --------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class MessageQueue(IpcObject):
    """A System V message queue."""

    messages: list[tuple[int, bytes]] = field(default_factory=list)
    limit: int = 16384
    stime: int = 0
    rtime: int = 0
    lspid: int = 0
    lrpid: int = 0
    changed: WaitQueue = field(default_factory=WaitQueue)

    @property
    def size(self) -> int:
        """Bytes queued."""
        return sum(len(text) for _, text in self.messages)


class Ipc:
    """Everything System V of one machine."""

    def __init__(self, sysctls: Sysctls) -> None:
        self.segments: Ids[Segment] = Ids(sysctls, "kernel/shmmni", 0, "kernel/shm_next_id")
        self.semaphores = Semaphores(sysctls)
        self.queues: Ids[MessageQueue] = Ids(sysctls, "kernel/msgmni", 0, "kernel/msg_next_id")


def ipc_of(kernel: Kernel) -> Ipc:
    """The machine's."""
    found = kernel.extensions.get("sysvipc")
    if not isinstance(found, Ipc):
        found = kernel.extensions["sysvipc"] = Ipc(kernel.sysctls)
    return found
