"""/proc/sys: the machine's settings.

Rule: a setting starts as the host has it and a write is remembered for the guest alone; what the emulator itself
enforces asks here, what the host enforces goes by the host's own setting.
Sources: man 5 proc_sys, proc_sys_fs, proc_sys_kernel; kernel/sysctl.c (proc_dointvec), ipc/ipc_sysctl.c.
"""

from __future__ import annotations

import re

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.host import Host

_NUMBER = re.compile(rb"[+-]?(?:0[xX][0-9a-fA-F]+|[0-9]+)")
_INT_MAX = (1 << 31) - 1
_RANGES: dict[str, tuple[int, int]] = {  # extra1 and extra2 of the tables in ipc/, fs/, kernel/
    "kernel/msgmax": (0, _INT_MAX),
    "kernel/msgmni": (0, 1 << 15),
    "kernel/msgmnb": (0, _INT_MAX),
    "kernel/shmmni": (0, 1 << 15),
    "kernel/pid_max": (301, 1 << 22),
    "fs/mqueue/msg_max": (1, 65536),
    "fs/mqueue/msgsize_max": (128, 16 << 20),
    "fs/mqueue/msg_default": (1, 65536),
    "fs/mqueue/msgsize_default": (128, 16 << 20),
    "fs/protected_symlinks": (0, 1),
    "fs/protected_hardlinks": (0, 1),
}
_TEXTS = frozenset({"kernel/core_pattern"})
_DEFAULTS = {
    "kernel/core_pattern": "core",
    "kernel/core_uses_pid": "0",
    "kernel/sem": "32000\t1024000000\t500\t32000",
    "kernel/msgmni": "32000",
    "kernel/msgmax": "8192",
    "kernel/msgmnb": "16384",
    "kernel/shmmax": "18446744073692774399",
    "kernel/shmall": "18446744073692774399",
    "kernel/shmmni": "4096",
    "kernel/msg_next_id": "-1",
    "kernel/sem_next_id": "-1",
    "kernel/shm_next_id": "-1",
    "fs/mqueue/msg_max": "10",
    "fs/mqueue/msgsize_max": "8192",
    "fs/mqueue/msg_default": "10",
    "fs/mqueue/msgsize_default": "8192",
    "fs/mqueue/queues_max": "256",
    "fs/pipe-max-size": "1048576",
    "fs/lease-break-time": "45",
    "fs/aio-max-nr": "65536",
}


class Sysctls:
    """The settings by their path below /proc/sys: "kernel/sem"."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[str, bytes] = {}

    def text(self, path: str) -> bytes:
        """What a read gives: the guest's value, else the host's of now."""
        found = self._known.get(path)
        if found is not None:
            return found
        try:
            return self._host.read_file("/proc/sys/" + path)
        except LinuxError:
            if path not in _DEFAULTS:
                raise
            return _DEFAULTS[path].encode() + b"\n"

    def numbers(self, path: str) -> list[int]:
        """A numeric setting the emulator goes by; the host is asked once."""
        found = self._known.get(path)
        if found is None:
            found = self._known[path] = self.text(path)
        return [int(word) for word in found.split()]

    def number(self, path: str) -> int:
        """A setting that is one number."""
        return self.numbers(path)[0]

    def store(self, path: str, data: bytes) -> None:
        """write(2): numbers are parsed as proc_dointvec does, anything else is one line of text."""
        try:
            before = self.text(path).split()
        except LinuxError:
            before = []  # may be written but not read: vm/drop_caches, vm/compact_memory
        if path in _TEXTS or not before or not all(_NUMBER.fullmatch(word) for word in before):
            self._known[path] = data.split(b"\n", 1)[0] + b"\n"
            return
        words = data.split(b"\0", 1)[0].split()[: len(before)]
        if not all(_NUMBER.fullmatch(word) for word in words):
            raise LinuxError(E.EINVAL)
        low, high = _RANGES.get(path, (None, None))
        values = [int(word, 16 if b"x" in word.lower() else 10) for word in words]
        for value in values:
            if (low is not None and value < low) or (high is not None and value > high):
                raise LinuxError(E.EINVAL)
        merged = [b"%d" % value for value in values] + before[len(values) :]
        self._known[path] = b"\t".join(merged) + b"\n"
