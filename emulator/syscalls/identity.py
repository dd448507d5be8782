"""Who: user and group ids.

Source: credentials(7), setresuid(2), setgroups(2).
"""

from __future__ import annotations

from dataclasses import replace

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.credentials import (
    CAP_SETGID,
    CAP_SETUID,
    UNCHANGED,
    Credentials,
)
from emulator.kernel.tasks import Task
from emulator.syscalls.registry import Int, Ptr, UInt, syscall


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


def become(t: Task, credentials: Credentials) -> None:
    """Replace a task's credentials; the host checks file permissions for them from now on (commit_creds)."""
    old, t.credentials = t.credentials, credentials
    t.kernel.assume_identity(t)
    if _effective(old) != _effective(credentials) or credentials.cap_permitted & ~old.cap_permitted:
        t.group.dumpable = 0  # what it has read as somebody else is nobody's to see
        t.pdeathsig = 0


def _effective(who: Credentials) -> tuple[int, int, int, int]:
    return who.euid, who.egid, who.fsuid, who.fsgid


def _set_uids(t: Task, ruid: int, euid: int, suid: int) -> None:
    """Replace uids; capabilities follow as capabilities(7), "Effect of user ID changes"."""
    old = t.credentials
    new = replace(old, ruid=ruid, euid=euid, suid=suid, fsuid=euid)
    had_root, has_root = 0 in (old.ruid, old.euid, old.suid), 0 in (ruid, euid, suid)
    if had_root and not has_root and not old.keep_caps:
        new = replace(new, cap_permitted=0, cap_effective=0, cap_ambient=0)
    elif old.euid == 0 and euid != 0:
        new = replace(new, cap_effective=0)
    elif old.euid != 0 and euid == 0:
        new = replace(new, cap_effective=new.cap_permitted)
    become(t, new)


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
        become(t, replace(c, rgid=gid, egid=gid, sgid=gid, fsgid=gid))
    elif gid in (c.rgid, c.sgid):
        become(t, replace(c, egid=gid, fsgid=gid))
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
    become(t, replace(c, rgid=real, egid=effective, sgid=saved, fsgid=effective))
    return 0


def _changed(wanted: tuple[int, ...], old: tuple[int, ...]) -> list[int]:
    """Return what the ids become: UNCHANGED leaves one alone."""
    return [before if new == UNCHANGED else new for new, before in zip(wanted, old, strict=True)]


@syscall("setresuid")
def setresuid(t: Task, ruid: UInt, euid: UInt, suid: UInt) -> int:
    """setresuid(2)."""
    c = t.credentials
    wanted = _changed((ruid, euid, suid), (c.ruid, c.euid, c.suid))
    if not c.capable(CAP_SETUID) and any(uid not in (c.ruid, c.euid, c.suid) for uid in wanted):
        raise LinuxError(E.EPERM)
    _set_uids(t, *wanted)
    return 0


@syscall("setresgid")
def setresgid(t: Task, rgid: UInt, egid: UInt, sgid: UInt) -> int:
    """setresgid(2)."""
    c = t.credentials
    wanted = _changed((rgid, egid, sgid), (c.rgid, c.egid, c.sgid))
    if not c.capable(CAP_SETGID) and any(gid not in (c.rgid, c.egid, c.sgid) for gid in wanted):
        raise LinuxError(E.EPERM)
    become(t, replace(c, rgid=wanted[0], egid=wanted[1], sgid=wanted[2], fsgid=wanted[1]))
    return 0


@syscall("setfsuid")
def setfsuid(t: Task, uid: UInt) -> int:
    """setfsuid(2): always answers the old one."""
    c = t.credentials
    if c.capable(CAP_SETUID) or uid in (c.ruid, c.euid, c.suid, c.fsuid):
        become(t, replace(c, fsuid=uid if uid != UNCHANGED else c.fsuid))
    return c.fsuid


@syscall("setfsgid")
def setfsgid(t: Task, gid: UInt) -> int:
    """setfsgid(2): always answers the old one."""
    c = t.credentials
    if c.capable(CAP_SETGID) or gid in (c.rgid, c.egid, c.sgid, c.fsgid):
        become(t, replace(c, fsgid=gid if gid != UNCHANGED else c.fsgid))
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
    become(t, replace(t.credentials, groups=tuple(sorted(groups))))
    return 0
