"""Futexes: who sleeps on which word.

Rule: a key is (address space, address), or for a word in shared memory the frame it lies in, so that processes meet.
A waiter is data in `task.call.memo`; waking marks it and makes the task runnable.
Source: futex(2), set_robust_list(2), Documentation/locking/robust-futex-ABI.rst, kernel/futex/.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.errors import LinuxError

if TYPE_CHECKING:
    from emulator.kernel.kernel import Kernel
    from emulator.kernel.tasks import Task

FUTEX_WAITERS = 0x80000000
FUTEX_OWNER_DIED = 0x40000000
FUTEX_TID_MASK = 0x3FFFFFFF
MATCH_ANY = 0xFFFFFFFF
ROBUST_LIST_LIMIT = 2048


class Waiter:
    """One sleeper (or one entry of futex_waitv's vector, then with its `index`).

    `pi_address` is the word that a lock_pi waiter wants.
    """

    __slots__ = ("bitset", "index", "key", "pi_address", "requeue_pi_key", "task", "woken")

    def __init__(
        self,
        task: Task,
        key: Hashable,
        bitset: int = MATCH_ANY,
        index: int = 0,
        pi_address: int = 0,
        requeue_pi_key: Hashable = None,
    ) -> None:
        self.task = task
        self.key = key
        self.bitset = bitset
        self.index = index
        self.pi_address = pi_address
        self.requeue_pi_key = requeue_pi_key
        self.woken = False


class Futexes:
    """All sleepers, by key, in order of arrival."""

    __slots__ = ("queues",)

    def __init__(self) -> None:
        self.queues: dict[Hashable, list[Waiter]] = {}

    def add(self, waiter: Waiter) -> None:
        """Go to sleep."""
        queue = self.queues.get(waiter.key)
        if queue is None:
            self.queues[waiter.key] = [waiter]
        else:
            queue.append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Stop sleeping without having been woken."""
        queue = self.queues.get(waiter.key)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self.queues[waiter.key]


def key_of(task: Task, address: int, *, shared: bool) -> Hashable:
    """The identity of a futex word; EINVAL if misaligned, EFAULT if not readable."""
    if address & 3:
        raise LinuxError(E.EINVAL)
    if shared:
        frame = task.space.shared_key(address)
        if frame is not None:
            if task.space.beyond_file(address):
                raise LinuxError(E.EFAULT)
            key: Hashable = ("shared", frame)
            return key
        # get_user_pages: a key of shared memory wants a page that is there; a private one is the address alone.
        task.memory.read_u32(address)
    return (task.space.serial, address)


def by_priority(queue: list[Waiter]) -> list[Waiter]:
    """Real-time sleepers first, the highest priority before others (plist_node_init in futex_queue)."""
    return sorted(queue, key=lambda waiter: -waiter.task.scheduling[1])


def wake(kernel: Kernel, key: Hashable, count: int, bitset: int = MATCH_ANY) -> int:
    """Wake up to `count` sleepers whose bitset meets `bitset`; how many."""
    queue = kernel.futexes.queues.get(key)
    if not queue or count <= 0:
        return 0
    woken = 0
    scheduler = kernel.scheduler
    for waiter in by_priority(queue) if scheduler.ranked else tuple(queue):
        if waiter.bitset & bitset and not waiter.pi_address:
            queue.remove(waiter)
            waiter.woken = True
            scheduler.wake(waiter.task)
            woken += 1
            if woken >= count:
                break
    if not queue:
        kernel.futexes.queues.pop(key, None)
    return woken


def requeue(kernel: Kernel, source: Hashable, target: Hashable, wake_count: int, move_count: int) -> tuple[int, int]:
    """Wake some sleepers, move others to another word; (woken, moved)."""
    woken = wake(kernel, source, wake_count)
    queue = kernel.futexes.queues.get(source)
    moved = 0
    if queue and source != target:
        for waiter in by_priority(queue)[: max(move_count, 0)]:
            queue.remove(waiter)
            waiter.key = target
            kernel.futexes.add(waiter)
            moved += 1
        if not queue:
            kernel.futexes.queues.pop(source, None)
    elif queue:
        moved = min(len(queue), max(move_count, 0))
    return woken, moved


def abandon(kernel: Kernel, task: Task) -> None:
    """A task leaves its call for good: it sleeps on nothing any more."""
    memo = task.call.memo
    waiters = memo if isinstance(memo, list) else [memo]
    for waiter in waiters:
        if isinstance(waiter, Waiter):
            kernel.futexes.remove(waiter)


def exit_robust_list(kernel: Kernel, task: Task) -> None:
    """Mark every robust lock of a dying thread FUTEX_OWNER_DIED and wake a waiter."""
    head = task.robust_list
    task.robust_list = 0
    if not head:
        return
    memory = task.memory
    size = memory.pointer_size
    entry = memory.read_ptr(head)
    offset = memory.read_ptr(head + size)
    if offset >> (size * 8 - 1):
        offset -= 1 << size * 8
    pending = memory.read_ptr(head + 2 * size)
    for _ in range(ROBUST_LIST_LIMIT):
        if entry & ~1 == head:
            break
        following = memory.read_ptr(entry & ~1)
        if entry != pending:
            _owner_died(kernel, task, (entry & ~1) + offset, bool(entry & 1), pending=False)
        entry = following
    if pending:
        _owner_died(kernel, task, (pending & ~1) + offset, bool(pending & 1), pending=True)


def _owner_died(kernel: Kernel, task: Task, address: int, pi: bool, *, pending: bool) -> None:
    if address & 3:
        return
    memory = task.memory
    value = memory.read_u32(address)
    if pending and not pi and not value:
        wake(kernel, key_of(task, address, shared=True), 1)
        return
    if value & FUTEX_TID_MASK != task.tid:
        return
    key = key_of(task, address, shared=True)
    memory.write_u32(address, value & FUTEX_WAITERS | FUTEX_OWNER_DIED)
    if pi:
        hand_over_pi(kernel, task, key, address, owner_died=True)
    elif value & FUTEX_WAITERS:
        wake(kernel, key, 1)


def hand_over_pi(kernel: Kernel, task: Task, key: Hashable, address: int, *, owner_died: bool = False) -> bool:
    """Give a priority-inheritance lock to its first waiter; False if there is none."""
    queue = kernel.futexes.queues.get(key)
    chosen = next((waiter for waiter in by_priority(queue) if waiter.pi_address), None) if queue else None
    if queue is None or chosen is None:
        return False
    queue.remove(chosen)
    more = any(waiter.pi_address for waiter in queue)
    if not queue:
        kernel.futexes.queues.pop(key, None)
    value = chosen.task.tid | (FUTEX_WAITERS if more else 0) | (FUTEX_OWNER_DIED if owner_died else 0)
    task.memory.write_u32(address, value)
    chosen.woken = True
    kernel.scheduler.wake(chosen.task)
    return True
