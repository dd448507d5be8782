"""NUMA: the calls, on a machine with one node.

Sources: man 2 get_mempolicy, set_mempolicy, mbind, migrate_pages, move_pages; mm/mempolicy.c, mm/migrate.c.
"""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.abi.memory import PAGE_SIZE
from emulator.errors import LinuxError
from emulator.kernel.credentials import CAP_SYS_NICE
from emulator.kernel.layout import page_align
from emulator.kernel.mempolicy import ALL_NODES, Mode, Policy, make_policy, split_mode
from emulator.kernel.permissions import may_access
from emulator.kernel.tasks import Task
from emulator.syscalls.registry import Int, Ptr, Size, UInt, syscall

MPOL_F_NODE, MPOL_F_ADDR, MPOL_F_MEMS_ALLOWED = 1, 2, 4
MPOL_MF_STRICT, MPOL_MF_MOVE, MPOL_MF_MOVE_ALL = 1, 2, 4
MAX_NODES, NODE_IDS = 1024, 1
_MOST_BITS = PAGE_SIZE * 8


def _read_nodes(t: Task, address: int, maxnode: int) -> int:
    """get_nodes(): a mask of `maxnode` - 1 bits; EINVAL for nodes no kernel has."""
    bits = maxnode - 1
    if bits <= 0 or not address:
        return 0
    if bits > _MOST_BITS:
        raise LinuxError(E.EINVAL)
    mask = int.from_bytes(t.memory.read(address, -(-bits // 64) * 8), "little") & (1 << bits) - 1
    if mask >> MAX_NODES:
        raise LinuxError(E.EINVAL)
    return mask


def _write_nodes(t: Task, address: int, maxnode: int, nodes: int) -> None:
    """copy_nodes_to_user()."""
    size = -(-(maxnode - 1) // 64) * 8
    if size > PAGE_SIZE and size > 8:
        raise LinuxError(E.EINVAL)
    t.memory.write(address, nodes.to_bytes(max(size, 8), "little")[:size])


@syscall("get_mempolicy")
def get_mempolicy(t: Task, policy: Ptr, nmask: Ptr, maxnode: Size, addr: Ptr, flags: Size) -> None:
    """get_mempolicy(2)."""
    if nmask and maxnode < NODE_IDS:
        raise LinuxError(E.EINVAL)
    if flags & ~(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED):
        raise LinuxError(E.EINVAL)
    found: Policy | None = t.mempolicy
    if flags & MPOL_F_MEMS_ALLOWED:
        if flags & (MPOL_F_NODE | MPOL_F_ADDR):
            raise LinuxError(E.EINVAL)
        value, nodes = 0, ALL_NODES
    else:
        if flags & MPOL_F_ADDR:
            vma = t.space.vmas.at(addr)
            if vma is None:
                raise LinuxError(E.EFAULT)
            found = vma.policy
        elif addr:
            raise LinuxError(E.EINVAL)
        if flags & MPOL_F_NODE:
            if not flags & MPOL_F_ADDR and (found is None or found.mode is not Mode.INTERLEAVE):
                raise LinuxError(E.EINVAL)
            value = 0  # the node of the page, or the next one to interleave to
        else:
            value = 0 if found is None else found.mode | found.flags
        nodes = 0 if found is None else found.shown
    if policy:
        t.memory.write_u32(policy, value)
    if nmask:
        _write_nodes(t, nmask, maxnode, nodes)


@syscall("set_mempolicy")
def set_mempolicy(t: Task, mode: Int, nmask: Ptr, maxnode: Size) -> None:
    """set_mempolicy(2)."""
    kind, flags = split_mode(mode)
    t.mempolicy = make_policy(kind, flags, _read_nodes(t, nmask, maxnode))


@syscall("mbind")
def mbind(t: Task, start: Ptr, length: Size, mode: Size, nmask: Ptr, maxnode: Size, flags: UInt) -> None:
    """mbind(2)."""
    kind, mode_flags = split_mode(mode)
    nodes = _read_nodes(t, nmask, maxnode)
    if flags & ~(MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL):
        raise LinuxError(E.EINVAL)
    if flags & MPOL_MF_MOVE_ALL and not t.credentials.capable(CAP_SYS_NICE):
        raise LinuxError(E.EPERM)
    if start % PAGE_SIZE:
        raise LinuxError(E.EINVAL)
    end = start + page_align(length)
    if end >= 1 << 64:
        raise LinuxError(E.EINVAL)
    if end == start:
        return
    policy = make_policy(kind, mode_flags, nodes)
    if any(vma is None for _, _, vma in t.space.spans(start, end)):
        raise LinuxError(E.EFAULT)
    vmas = t.space.vmas
    vmas.split(start)
    vmas.split(end)
    for vma in vmas.overlapping(start, end):
        vma.policy = policy
    vmas.merge_around(start, end)


def _other(t: Task, pid: int) -> Task:
    task = t if pid == 0 else t.kernel.tasks.find(pid)
    if task is None:
        raise LinuxError(E.ESRCH)
    if task is not t and not may_access(t, task):
        raise LinuxError(E.EPERM)
    return task


@syscall("migrate_pages")
def migrate_pages(t: Task, pid: Int, maxnode: Size, old: Ptr, new: Ptr) -> None:
    """migrate_pages(2): there is nowhere to go."""
    _read_nodes(t, old, maxnode)
    goal = _read_nodes(t, new, maxnode)
    _other(t, pid)
    if goal & ~ALL_NODES and not t.credentials.capable(CAP_SYS_NICE):
        raise LinuxError(E.EPERM)
    if not goal & ALL_NODES:
        raise LinuxError(E.EINVAL)


@syscall("move_pages")
def move_pages(t: Task, pid: Int, count: Size, pages: Ptr, nodes: Ptr, status: Ptr, flags: Int) -> None:
    """move_pages(2): everything is on node 0, and can go nowhere else."""
    if flags & ~(MPOL_MF_MOVE | MPOL_MF_MOVE_ALL):
        raise LinuxError(E.EINVAL)
    if flags & MPOL_MF_MOVE_ALL and not t.credentials.capable(CAP_SYS_NICE):
        raise LinuxError(E.EPERM)
    space = _other(t, pid).space
    for index in range(count):
        address = t.memory.read_ptr(pages + t.arch.pointer_size * index)
        if nodes:
            node = t.memory.read_s32(nodes + 4 * index)
            if not 0 <= node < MAX_NODES or not ALL_NODES >> node & 1:
                raise LinuxError(E.ENODEV)
        page = address - address % PAGE_SIZE
        if space.vmas.at(address) is None:
            found = -t.arch.errno[E.EFAULT]
        else:
            found = 0 if any(space.table.resident(page, PAGE_SIZE)) else -t.arch.errno[E.ENOENT]
        t.memory.write_s32(status + 4 * index, found)
