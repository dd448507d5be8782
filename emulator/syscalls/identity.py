"""Who and where: ids, capabilities, limits, names, prctl.

Source: credentials(7), setresuid(2), capget(2), getrlimit(2), uname(2), sysinfo(2), prctl(2), getpriority(2).
"""

from __future__ import annotations

from dataclasses import replace

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.credentials import (
    ALL_CAPABILITIES,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETUID,
    CAP_SYS_ADMIN,
    CAP_SYS_NICE,
    CAP_SYS_RESOURCE,
    UNCHANGED,
    Credentials,
)
from emulator.kernel.tasks import Task
from emulator.kernel.thread_group import RLIMIT_CPU, RLIMIT_NOFILE, ThreadGroup
from emulator.kernel.timers import arm_cpu_limit
from emulator.syscalls.registry import Int, Ptr, Size, UInt, syscall

# -- user and group ids ----------------------------------------------------------------------------------------------


@syscall("getuid")
def getuid(t: Task) -> int:
    """getuid(2)."""
    return t.credentials.ruid


@syscall("geteuid")
def geteuid(t: Task) -> int:
    """geteuid(2)."""
    return t.credentials.euid


@syscall("getgid")
def getgid(t: Task) -> int:
    """getgid(2)."""
    return t.credentials.rgid


@syscall("getegid")
def getegid(t: Task) -> int:
    """getegid(2)."""
    return t.credentials.egid


@syscall("getresuid")
def getresuid(t: Task, real: Ptr, effective: Ptr, saved: Ptr) -> int:
    """getresuid(2)."""
    c = t.credentials
    for address, value in ((real, c.ruid), (effective, c.euid), (saved, c.suid)):
        t.memory.write_u32(address, value)
    return 0


@syscall("getresgid")
def getresgid(t: Task, real: Ptr, effective: Ptr, saved: Ptr) -> int:
    """getresgid(2)."""
    c = t.credentials
    for address, value in ((real, c.rgid), (effective, c.egid), (saved, c.sgid)):
        t.memory.write_u32(address, value)
    return 0


def _become(t: Task, credentials: Credentials) -> None:
    """Replace a task's credentials; the host checks file permissions for them from now on."""
    t.credentials = credentials
    t.kernel.assume_identity(t)


def _set_uids(t: Task, ruid: int, euid: int, suid: int) -> None:
    """Replace uids; capabilities follow as capabilities(7), "Effect of user ID changes"."""
    old = t.credentials
    new = replace(old, ruid=ruid, euid=euid, suid=suid, fsuid=euid)
    had_root, has_root = 0 in (old.ruid, old.euid, old.suid), 0 in (ruid, euid, suid)
    if had_root and not has_root and not old.keep_caps:
        new = replace(new, cap_permitted=0, cap_effective=0)
    elif old.euid == 0 and euid != 0:
        new = replace(new, cap_effective=0)
    elif old.euid != 0 and euid == 0:
        new = replace(new, cap_effective=new.cap_permitted)
    _become(t, new)


@syscall("setuid")
def setuid(t: Task, uid: UInt) -> int:
    """setuid(2)."""
    if uid == UNCHANGED:
        raise LinuxError(E.EINVAL)
    c = t.credentials
    if c.capable(CAP_SETUID):
        _set_uids(t, uid, uid, uid)
    elif uid in (c.ruid, c.suid):
        _set_uids(t, c.ruid, uid, c.suid)
    else:
        raise LinuxError(E.EPERM)
    return 0


@syscall("setgid")
def setgid(t: Task, gid: UInt) -> int:
    """setgid(2)."""
    if gid == UNCHANGED:
        raise LinuxError(E.EINVAL)
    c = t.credentials
    if c.capable(CAP_SETGID):
        _become(t, replace(c, rgid=gid, egid=gid, sgid=gid, fsgid=gid))
    elif gid in (c.rgid, c.sgid):
        _become(t, replace(c, egid=gid, fsgid=gid))
    else:
        raise LinuxError(E.EPERM)
    return 0


@syscall("setreuid")
def setreuid(t: Task, ruid: UInt, euid: UInt) -> int:
    """setreuid(2)."""
    c = t.credentials
    privileged = c.capable(CAP_SETUID)
    real = c.ruid if ruid == UNCHANGED else ruid
    effective = c.euid if euid == UNCHANGED else euid
    if not privileged and (real not in (c.ruid, c.euid) or effective not in (c.ruid, c.euid, c.suid)):
        raise LinuxError(E.EPERM)
    saved = effective if ruid != UNCHANGED or (euid != UNCHANGED and effective != c.ruid) else c.suid
    _set_uids(t, real, effective, saved)
    return 0


@syscall("setregid")
def setregid(t: Task, rgid: UInt, egid: UInt) -> int:
    """setregid(2)."""
    c = t.credentials
    real = c.rgid if rgid == UNCHANGED else rgid
    effective = c.egid if egid == UNCHANGED else egid
    if not c.capable(CAP_SETGID) and (real not in (c.rgid, c.egid) or effective not in (c.rgid, c.egid, c.sgid)):
        raise LinuxError(E.EPERM)
    saved = effective if rgid != UNCHANGED or (egid != UNCHANGED and effective != c.rgid) else c.sgid
    _become(t, replace(c, rgid=real, egid=effective, sgid=saved, fsgid=effective))
    return 0


def _changed(wanted: tuple[int, ...], old: tuple[int, ...]) -> list[int]:
    """-1 leaves an id alone."""
    return [before if new == UNCHANGED else new for new, before in zip(wanted, old, strict=True)]


@syscall("setresuid")
def setresuid(t: Task, ruid: UInt, euid: UInt, suid: UInt) -> int:
    """setresuid(2)."""
    c = t.credentials
    wanted = [
        old if new == UNCHANGED else new for new, old in zip((ruid, euid, suid), (c.ruid, c.euid, c.suid), strict=False)
    ]
    if not c.capable(CAP_SETUID) and any(uid not in (c.ruid, c.euid, c.suid) for uid in wanted):
        raise LinuxError(E.EPERM)
    _set_uids(t, *wanted)
    return 0


@syscall("setresgid")
def setresgid(t: Task, rgid: UInt, egid: UInt, sgid: UInt) -> int:
    """setresgid(2)."""
    c = t.credentials
    wanted = [
        old if new == UNCHANGED else new for new, old in zip((rgid, egid, sgid), (c.rgid, c.egid, c.sgid), strict=False)
    ]
    if not c.capable(CAP_SETGID) and any(gid not in (c.rgid, c.egid, c.sgid) for gid in wanted):
        raise LinuxError(E.EPERM)
    _become(t, replace(c, rgid=wanted[0], egid=wanted[1], sgid=wanted[2], fsgid=wanted[1]))
    return 0


@syscall("setfsuid")
def setfsuid(t: Task, uid: UInt) -> int:
    """setfsuid(2): always answers the old one."""
    c = t.credentials
    if c.capable(CAP_SETUID) or uid in (c.ruid, c.euid, c.suid, c.fsuid):
        _become(t, replace(c, fsuid=uid if uid != UNCHANGED else c.fsuid))
    return c.fsuid


@syscall("setfsgid")
def setfsgid(t: Task, gid: UInt) -> int:
    """setfsgid(2): always answers the old one."""
    c = t.credentials
    if c.capable(CAP_SETGID) or gid in (c.rgid, c.egid, c.sgid, c.fsgid):
        _become(t, replace(c, fsgid=gid if gid != UNCHANGED else c.fsgid))
    return c.fsgid


NGROUPS_MAX = 65536


@syscall("getgroups")
def getgroups(t: Task, size: Int, address: Ptr) -> int:
    """getgroups(2)."""
    groups = t.credentials.groups
    if size < 0 or (size and size < len(groups)):
        raise LinuxError(E.EINVAL)
    if size and groups:
        t.memory.write_struct(address, "I" * len(groups), *groups)
    return len(groups)


@syscall("setgroups")
def setgroups(t: Task, size: Int, address: Ptr) -> int:
    """setgroups(2)."""
    if not t.credentials.capable(CAP_SETGID):
        raise LinuxError(E.EPERM)
    if not 0 <= size <= NGROUPS_MAX:
        raise LinuxError(E.EINVAL)
    groups = t.memory.read_struct(address, "I" * size) if size else ()
    _become(t, replace(t.credentials, groups=tuple(sorted(groups))))
    return 0


# -- capabilities ----------------------------------------------------------------------------------------------------

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
    _become(t, replace(c, cap_effective=effective, cap_permitted=permitted, cap_inheritable=inheritable))
    return 0


# -- limits and priorities -------------------------------------------------------------------------------------------


def _limits(t: Task, group: ThreadGroup, resource: int, new: tuple[int, int] | None) -> tuple[int, int]:
    """do_prlimit(): returns the limit that was."""
    if not 0 <= resource < len(group.rlimits):
        raise LinuxError(E.EINVAL)
    before = group.rlimits[resource]
    if new is not None:
        soft, hard = new
        if soft > hard:
            raise LinuxError(E.EINVAL)
        if resource == RLIMIT_NOFILE and hard > 1 << 20:
            raise LinuxError(E.EPERM)
        if hard > before[1] and not t.credentials.capable(CAP_SYS_RESOURCE):
            raise LinuxError(E.EPERM)
        group.rlimits[resource] = new
        if resource == RLIMIT_CPU:
            arm_cpu_limit(t.kernel, group)
        if resource == RLIMIT_NOFILE:
            for task in group.tasks.values():
                task.fds.limit = soft
    return before


@syscall("getrlimit")
def getrlimit(t: Task, resource: UInt, address: Ptr) -> int:
    """getrlimit(2)."""
    t.memory.write_struct(address, "LL", *_limits(t, t.group, resource, None))
    return 0


@syscall("setrlimit")
def setrlimit(t: Task, resource: UInt, address: Ptr) -> int:
    """setrlimit(2)."""
    soft, hard = t.memory.read_struct(address, "LL")
    _limits(t, t.group, resource, (soft, hard))
    return 0


@syscall("prlimit64")
def prlimit64(t: Task, pid: Int, resource: UInt, new: Ptr, old: Ptr) -> int:
    """prlimit(2)."""
    wanted: tuple[int, int] | None = None
    if new:
        soft, hard = t.memory.read_struct(new, "QQ")
        wanted = (soft, hard)
    task = t if pid == 0 else t.kernel.tasks.find(pid)
    if task is None:
        raise LinuxError(E.ESRCH)
    before = _limits(t, task.group, resource, wanted)
    if old:
        t.memory.write_struct(old, "QQ", *before)
    return 0


PRIO_PROCESS, PRIO_PGRP, PRIO_USER = range(3)


def _prioritised(t: Task, which: int, who: int) -> list[Task]:
    kernel = t.kernel
    match which:
        case 0:
            task = t if who == 0 else kernel.tasks.find(who)
            found = [task] if task is not None else []
        case 1:
            groups = kernel.members(who or t.group.pgid)
            found = [task for group in groups for task in group.tasks.values()]
        case 2:
            uid = who or t.credentials.ruid
            found = [task for task in kernel.tasks if task.credentials.ruid == uid]
        case _:
            raise LinuxError(E.EINVAL)
    if not found:
        raise LinuxError(E.ESRCH)
    return found


@syscall("getpriority")
def getpriority(t: Task, which: Int, who: Int) -> int:
    """getpriority(2), as the system call answers: 20 - nice."""
    return max(20 - task.nice for task in _prioritised(t, which, who))


@syscall("setpriority")
def setpriority(t: Task, which: Int, who: Int, nice: Int) -> int:
    """setpriority(2): remembered, not acted on."""
    nice = max(-20, min(19, nice))
    for task in _prioritised(t, which, who):
        if nice < task.nice and not t.credentials.capable(CAP_SYS_NICE):
            raise LinuxError(E.EACCES)
        task.nice = nice
    return 0


@syscall("ioprio_get")
def ioprio_get(t: Task, which: Int, who: Int) -> int:
    """ioprio_get(2): nothing set."""
    if which not in (1, 2, 3):
        raise LinuxError(E.EINVAL)
    return 0


@syscall("ioprio_set")
def ioprio_set(t: Task, which: Int, who: Int, priority: Int) -> int:
    """ioprio_set(2): accepted, not acted on."""
    if which not in (1, 2, 3) or priority >> 13 > 3:
        raise LinuxError(E.EINVAL)
    return 0


# -- the machine -----------------------------------------------------------------------------------------------------

UTS_LENGTH = 65
RELEASE, VERSION = "6.1.0-emugdb", "#1 SMP PREEMPT_DYNAMIC emugdb"


@syscall("uname")
def uname(t: Task, address: Ptr) -> int:
    """uname(2)."""
    kernel = t.kernel
    machine = t.arch.name if not t.personality & 8 else "i686"
    fields = ("Linux", kernel.hostname, RELEASE, VERSION, machine, kernel.domainname)
    t.memory.write(address, b"".join(field.encode()[: UTS_LENGTH - 1].ljust(UTS_LENGTH, b"\0") for field in fields))
    return 0


@syscall("sethostname")
def sethostname(t: Task, name: Ptr, length: Int) -> int:
    """sethostname(2): the guest's only."""
    _name_change(t, length)
    t.kernel.hostname = t.memory.read(name, length).partition(b"\0")[0].decode(errors="surrogateescape")
    return 0


@syscall("setdomainname")
def setdomainname(t: Task, name: Ptr, length: Int) -> int:
    """setdomainname(2): the guest's only."""
    _name_change(t, length)
    t.kernel.domainname = t.memory.read(name, length).partition(b"\0")[0].decode(errors="surrogateescape")
    return 0


def _name_change(t: Task, length: int) -> None:
    if not t.credentials.capable(CAP_SYS_ADMIN):
        raise LinuxError(E.EPERM)
    if not 0 <= length < UTS_LENGTH:
        raise LinuxError(E.EINVAL)


@syscall("sysinfo")
def sysinfo(t: Task, address: Ptr) -> int:
    """sysinfo(2)."""
    kernel = t.kernel
    total, used = kernel.memory_bytes()
    uptime = (kernel.clock.monotonic_ns() - kernel.clock.boot_ns) // 1_000_000_000
    t.memory.write_struct(
        address,
        "lLLLLLLLLLHHxxxxLLI",
        uptime + 1,
        *(0, 0, 0),
        *(total, total - used, 0, 0, 0, 0),
        *(min(len(kernel.tasks), 0xFFFF), 0),
        *(0, 0, 1),
    )
    return 0


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
        case _:
            raise LinuxError(E.EINVAL)
    return 0


# -- prctl -----------------------------------------------------------------------------------------------------------


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
            _become(t, replace(c, keep_caps=bool(a2)))
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
            return 0
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
            _become(t, replace(c, securebits=a2 & 0xFF))
        case 29:  # PR_SET_TIMERSLACK
            t.timer_slack_ns = a2 or 50_000
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
            _become(t, replace(c, no_new_privs=True))
        case 39:  # PR_GET_NO_NEW_PRIVS
            if a2 or a3 or a4 or a5:
                raise LinuxError(E.EINVAL)
            return int(c.no_new_privs)
        case 40:  # PR_GET_TID_ADDRESS
            memory.write_ptr(a2, t.clear_child_tid)
        case 41 | 42:  # PR_SET_THP_DISABLE, PR_GET_THP_DISABLE
            return 0
        case 47:  # PR_CAP_AMBIENT
            return _ambient(t, a2)
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
    _become(t, replace(c, cap_bounding=c.cap_bounding & ~(1 << capability)))
    return 0


def _ambient(t: Task, what: int) -> int:
    match what:
        case 1 | 3 | 4:  # IS_SET, LOWER, CLEAR_ALL
            return 0
        case 2:
            raise LinuxError(E.EPERM)
    raise LinuxError(E.EINVAL)


def _name_vma(t: Task, what: int, start: int, length: int, name: int) -> int:
    """PR_SET_VMA_ANON_NAME."""
    if what or start % 4096:
        raise LinuxError(E.EINVAL)
    text = t.memory.read_cstring(name, 80, E.EINVAL).decode(errors="replace") if name else ""
    end = start + (length + 4095 & -4096)
    if not t.space.set_name(start, end, f"[anon:{text}]" if text else ""):
        raise LinuxError(E.ENOMEM)
    return 0
