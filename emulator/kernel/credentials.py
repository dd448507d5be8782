"""Who a task is: user and group ids, capabilities.  Source: credentials(7), capabilities(7).

Rule: ids are the guest's own numbers, initially the host user's; a change of them is the guest's alone.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, replace

ALL_CAPABILITIES = (1 << 41) - 1
SECURE_NOROOT = 1
UNCHANGED = 0xFFFFFFFF  # -1 as uid_t: leave alone


@dataclass(frozen=True, slots=True)
class Credentials:
    """Replaced as a whole; threads of a process may differ, as in Linux."""

    ruid: int = 0
    euid: int = 0
    suid: int = 0
    fsuid: int = 0
    rgid: int = 0
    egid: int = 0
    sgid: int = 0
    fsgid: int = 0
    groups: tuple[int, ...] = ()
    cap_effective: int = 0
    cap_permitted: int = 0
    cap_inheritable: int = 0
    cap_bounding: int = ALL_CAPABILITIES
    cap_ambient: int = 0
    no_new_privs: bool = False
    keep_caps: bool = False
    securebits: int = 0

    @classmethod
    def of(
        cls,
        uid: int,
        gid: int,
        groups: tuple[int, ...] = (),
        capabilities: int = ALL_CAPABILITIES,
        bounding: int = ALL_CAPABILITIES,
    ) -> Credentials:
        """Those of a fresh login: root has every capability the bounding set leaves it."""
        caps = capabilities if uid == 0 else 0
        return cls(uid, uid, uid, uid, gid, gid, gid, gid, groups, caps, caps, cap_bounding=bounding)

    def executed(self, mode: int, uid: int, gid: int) -> Credentials:
        """Those that execve(2) of a file with this mode and owner leaves (cap_bprm_creds_from_file)."""
        euid, egid = self.euid, self.egid
        if not self.no_new_privs:
            euid = uid if mode & stat.S_ISUID else euid
            egid = gid if mode & stat.S_ISGID and mode & stat.S_IXGRP else egid
        same = (euid, egid) == (self.euid, self.egid)
        ambient = self.cap_ambient if same else 0
        permitted = effective = ambient
        if not self.securebits & SECURE_NOROOT and 0 in (self.ruid, euid):
            permitted = self.cap_bounding | self.cap_inheritable
            effective = permitted if not euid else ambient
        new = replace(self, keep_caps=False, euid=euid, suid=euid, fsuid=euid, egid=egid, sgid=egid, fsgid=egid)
        return replace(new, cap_permitted=permitted, cap_effective=effective, cap_ambient=ambient)

    def capable(self, capability: int) -> bool:
        """Is CAP_<number> effective?"""
        return bool(self.cap_effective >> capability & 1)


CAP_DAC_OVERRIDE, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP = 1, 5, 6, 7, 8
CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE, CAP_SYS_ADMIN = 10, 12, 13, 19, 21
CAP_SYS_NICE, CAP_SYS_RESOURCE, CAP_SYS_TIME, CAP_CHECKPOINT_RESTORE = 23, 24, 25, 40
