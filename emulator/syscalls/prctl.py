"""prctl(2), arch_prctl(2) and personality(2).

Source: prctl(2), arch_prctl(2), personality(2), <linux/prctl.h>.
"""

from __future__ import annotations

from dataclasses import replace

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.credentials import CAP_SETPCAP, UNCHANGED
from emulator.kernel.tasks import Task
from emulator.syscalls import seccomp
from emulator.syscalls.identity import become
from emulator.syscalls.registry import Int, Ptr, Size, UInt, syscall

SECURE_NO_CAP_AMBIENT_RAISE = 1 << 6


@syscall("personality")
def personality(t: Task, persona: UInt) -> int:
    """personality(2)."""
    before = t.personality
    if persona != UNCHANGED:
        t.personality = persona
    return before


@syscall("arch_prctl")
def arch_prctl(t: Task, code: Int, address: Ptr) -> int:
    """arch_prctl(2): the x86-64 segment bases."""
    cpu = t.kernel.cpu
    match code:
        case 0x1001 | 0x1002:
            if address >= t.arch.layout.task_size:
                raise LinuxError(E.EPERM)
            cpu.write("gs_base" if code == 0x1001 else "fs_base", address)
        case 0x1003 | 0x1004:
            t.memory.write_u64(address, cpu.read("fs_base" if code == 0x1003 else "gs_base"))
        case 0x1011:  # ARCH_GET_CPUID: cpuid does not fault
            return 1
        case 0x1012:  # ARCH_SET_CPUID: and cannot be made to
            raise LinuxError(E.ENODEV)
        case _:
            raise LinuxError(E.EINVAL)
    return 0


@syscall("prctl")
def prctl(t: Task, option: Int, a2: Size, a3: Size, a4: Size, a5: Size) -> int:
    """prctl(2)."""
    group, memory, c = t.group, t.memory, t.credentials
    match option:
        case 1:  # PR_SET_PDEATHSIG
            if a2 > 64:
                raise LinuxError(E.EINVAL)
            t.pdeathsig = a2
        case 2:  # PR_GET_PDEATHSIG
            memory.write_u32(a2, t.pdeathsig)
        case 3:  # PR_GET_DUMPABLE
            return group.dumpable
        case 4:  # PR_SET_DUMPABLE
            if a2 > 1:
                raise LinuxError(E.EINVAL)
            group.dumpable = a2
        case 7:  # PR_GET_KEEPCAPS
            return int(c.keep_caps)
        case 8:  # PR_SET_KEEPCAPS
            if a2 > 1:
                raise LinuxError(E.EINVAL)
            become(t, replace(c, keep_caps=bool(a2)))
        case 13:  # PR_GET_TIMING
            return 0
        case 14:  # PR_SET_TIMING
            if a2:
                raise LinuxError(E.EINVAL)
        case 15:  # PR_SET_NAME
            t.name = _comm(t, a2)
        case 16:  # PR_GET_NAME
            memory.write(a2, t.name.encode(errors="surrogateescape").ljust(16, b"\0"))
        case 21:  # PR_GET_SECCOMP
            return t.seccomp.mode if t.seccomp is not None else 0
        case 22:  # PR_SET_SECCOMP
            return seccomp.prctl_set(t, a2, a3)
        case 23 | 24:  # PR_CAPBSET_READ, PR_CAPBSET_DROP
            return _bounding_set(t, option, a2)
        case 25:  # PR_GET_TSC
            memory.write_u32(a2, 1)
        case 26:  # PR_SET_TSC
            if a2 != 1:
                raise LinuxError(E.EINVAL)
        case 27:  # PR_GET_SECUREBITS
            return c.securebits
        case 28:  # PR_SET_SECUREBITS
            if not c.capable(CAP_SETPCAP):
                raise LinuxError(E.EPERM)
            become(t, replace(c, securebits=a2 & 0xFF))
        case 29:  # PR_SET_TIMERSLACK
            t.timer_slack_ns = a2 if 0 < a2 < 1 << 63 else t.default_timer_slack_ns
        case 30:  # PR_GET_TIMERSLACK
            return t.timer_slack_ns
        case 33 | 34:  # PR_MCE_KILL, PR_MCE_KILL_GET
            return 2 if option == 34 else 0
        case 36:  # PR_SET_CHILD_SUBREAPER
            group.subreaper = bool(a2)
        case 37:  # PR_GET_CHILD_SUBREAPER
            memory.write_u32(a2, int(group.subreaper))
        case 38:  # PR_SET_NO_NEW_PRIVS
            if a2 != 1 or a3 or a4 or a5:
                raise LinuxError(E.EINVAL)
            become(t, replace(c, no_new_privs=True))
        case 39:  # PR_GET_NO_NEW_PRIVS
            if a2 or a3 or a4 or a5:
                raise LinuxError(E.EINVAL)
            return int(c.no_new_privs)
        case 40:  # PR_GET_TID_ADDRESS
            memory.write_ptr(a2, t.clear_child_tid)
        case 41 | 42:  # PR_SET_THP_DISABLE, PR_GET_THP_DISABLE
            if a3 or a4 or a5 or (option == 42 and a2):
                raise LinuxError(E.EINVAL)
            return 0
        case 47:  # PR_CAP_AMBIENT
            return _ambient(t, a2, a3, a4, a5)
        case 52:  # PR_GET_SPECULATION_CTRL: nothing is mitigated, as /proc/PID/status says
            if a3 or a4 or a5:
                raise LinuxError(E.EINVAL)
            if a2 > 2:
                raise LinuxError(E.ENODEV)
            return 2  # PR_SPEC_ENABLE
        case 0x59616D61:  # PR_SET_PTRACER
            return 0
        case 0x53564D41:  # PR_SET_VMA
            return _name_vma(t, a2, a3, a4, a5)
        case _:
            raise LinuxError(E.EINVAL)
    return 0


def _comm(t: Task, address: int) -> str:
    """Up to 15 bytes, read as strncpy_from_user would."""
    text = bytearray()
    for offset in range(15):
        byte = t.memory.read_u8(address + offset)
        if not byte:
            break
        text.append(byte)
    return text.decode(errors="surrogateescape")


def _bounding_set(t: Task, option: int, capability: int) -> int:
    if capability > 40:
        raise LinuxError(E.EINVAL)
    c = t.credentials
    if option == 23:
        return c.cap_bounding >> capability & 1
    if not c.capable(CAP_SETPCAP):
        raise LinuxError(E.EPERM)
    become(t, replace(c, cap_bounding=c.cap_bounding & ~(1 << capability)))
    return 0


def _ambient(t: Task, what: int, capability: int, a4: int, a5: int) -> int:
    """PR_CAP_AMBIENT_IS_SET (1), RAISE (2), LOWER (3), CLEAR_ALL (4)."""
    c = t.credentials
    if what == 4 and not (capability or a4 or a5):
        become(t, replace(c, cap_ambient=0))
        return 0
    if not 1 <= what <= 3 or capability > 40 or a4 or a5:
        raise LinuxError(E.EINVAL)
    bit = 1 << capability
    if what == 1:
        return int(bool(c.cap_ambient & bit))
    if what == 3:
        become(t, replace(c, cap_ambient=c.cap_ambient & ~bit))
        return 0
    if not c.cap_permitted & c.cap_inheritable & bit or c.securebits & SECURE_NO_CAP_AMBIENT_RAISE:
        raise LinuxError(E.EPERM)
    become(t, replace(c, cap_ambient=c.cap_ambient | bit))
    return 0


def _name_vma(t: Task, what: int, start: int, length: int, name: int) -> int:
    """PR_SET_VMA_ANON_NAME."""
    if what or start % 4096:
        raise LinuxError(E.EINVAL)
    text = t.memory.read_cstring(name, 80, E.EINVAL).decode(errors="replace") if name else ""
    end = start + (length + 4095 & -4096)
    if not t.space.set_name(start, end, f"[anon:{text}]" if text else ""):
        raise LinuxError(E.ENOMEM)
    return 0
