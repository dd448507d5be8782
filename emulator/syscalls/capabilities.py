"""What a task may: capget, capset.

Source: capget(2), capabilities(7).
"""

from __future__ import annotations

from dataclasses import replace

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.credentials import ALL_CAPABILITIES, CAP_SETPCAP
from emulator.kernel.tasks import Task
from emulator.syscalls.identity import become
from emulator.syscalls.registry import Ptr, syscall

_CAP_VERSIONS = {0x19980330: 1, 0x20071026: 2, 0x20080522: 2}
_CAP_PREFERRED = 0x20080522


def _cap_header(t: Task, header: int) -> tuple[int, int]:
    version, pid = t.memory.read_struct(header, "Ii")
    if version not in _CAP_VERSIONS:
        t.memory.write_u32(header, _CAP_PREFERRED)
        raise LinuxError(E.EINVAL)
    return _CAP_VERSIONS[version], pid


@syscall("capget")
def capget(t: Task, header: Ptr, data: Ptr) -> int:
    """capget(2)."""
    try:
        words, pid = _cap_header(t, header)
    except LinuxError as error:
        if error.errno is E.EINVAL and not data:
            return 0
        raise
    if pid < 0:
        raise LinuxError(E.EINVAL)
    task = t if pid in (0, t.tid) else t.kernel.tasks.find(pid)
    if task is None:
        raise LinuxError(E.ESRCH)
    if not data:
        return 0
    c = task.credentials
    for index in range(words):
        shift = 32 * index
        sets = (c.cap_effective >> shift, c.cap_permitted >> shift, c.cap_inheritable >> shift)
        t.memory.write_struct(data + 12 * index, "III", *(value & 0xFFFFFFFF for value in sets))
    return 0


@syscall("capset")
def capset(t: Task, header: Ptr, data: Ptr) -> int:
    """capset(2)."""
    words, pid = _cap_header(t, header)
    if pid not in (0, t.tid):
        raise LinuxError(E.EPERM)
    effective = permitted = inheritable = 0
    for index in range(words):
        e, p, i = t.memory.read_struct(data + 12 * index, "III")
        effective |= e << 32 * index
        permitted |= p << 32 * index
        inheritable |= i << 32 * index
    c = t.credentials
    effective, permitted, inheritable = (s & ALL_CAPABILITIES for s in (effective, permitted, inheritable))
    if permitted & ~c.cap_permitted or effective & ~permitted:
        raise LinuxError(E.EPERM)
    if inheritable & ~(c.cap_inheritable | c.cap_permitted) and not c.capable(CAP_SETPCAP):
        raise LinuxError(E.EPERM)
    if inheritable & ~(c.cap_inheritable | c.cap_bounding):
        raise LinuxError(E.EPERM)
    ambient = c.cap_ambient & permitted & inheritable
    new = replace(c, cap_effective=effective, cap_permitted=permitted)
    become(t, replace(new, cap_inheritable=inheritable, cap_ambient=ambient))
    return 0
