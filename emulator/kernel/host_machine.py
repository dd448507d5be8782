"""The host as a machine: its limits, names, time and randomness, and whom it takes the emulator for.

Rule: as `host`, of which this is the part that is not about files.
Sources: getrlimit(2), clock_gettime(2), getrandom(2), setfsuid(2), capabilities(7).
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import time
from collections.abc import Callable
from typing import Any, TypeVar

from emulator.kernel import host_libc as libc
from emulator.kernel.host_errno import FAILURES, linux_error, translated

T = TypeVar("T")

_OWN_DESCRIPTORS = 128  # directories held open, epoll sets, listeners of the server


#: What the host may check for the guest: files (CAP_FS_MASK), networks, administration and resources.
_CAPS_OF_GUEST = sum(1 << cap for cap in (0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 21, 24, 27, 32))


class HostMachine:
    """Facts of the host, and as whom it acts for the guest.  Every method raises LinuxError and nothing else."""

    def __init__(self) -> None:
        """Raise the descriptor limit, and take the umask over: the guest's own is applied by hand."""
        self._seeded: random.Random | None = None
        self._identity: tuple[int, int, tuple[int, ...], int] | None = None  # fsuid, fsgid, groups, capabilities
        infinity = (1 << 64) - 1
        self.initial_limits = [  # by RLIMIT_*, which asm-generic numbers as the host does
            tuple(infinity if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(number))
            for number in range(16)
        ]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.initial_umask = os.umask(0)
        usable = max(hard - _OWN_DESCRIPTORS, 64)  # what is left of RLIMIT_NOFILE for a guest process
        self.initial_limits[resource.RLIMIT_NOFILE] = (min(soft, usable), usable)

    def hostname(self) -> str:
        """uname(2), nodename."""
        return os.uname().nodename

    def release(self) -> tuple[str, str]:
        """uname(2), release and version."""
        host = os.uname()
        return host.release, host.version

    # -- anything ------------------------------------------------------------------------------------------------

    def call(self, function: Callable[..., T], /, *args: Any, **keywords: Any) -> T:
        """Call any function of the standard library that talks to the host."""
        try:
            return function(*args, **keywords)
        except FAILURES as error:
            raise linux_error(error) from None

    # -- time and randomness -------------------------------------------------------------------------------------

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def realtime_ns(self) -> int:
        """CLOCK_REALTIME."""
        return time.time_ns()

    def clock_ns(self, clock: int) -> int:
        """Any host clock by its number (they are the same on every ISA)."""
        return self.call(time.clock_gettime_ns, clock)

    def random(self, count: int) -> bytes:
        """Random bytes, as getrandom(2); the same in every run with the same --seed."""
        if self._seeded is not None:
            return self._seeded.randbytes(count)
        return os.urandom(count)

    def seed(self, seed: int) -> None:
        """Make `random` repeatable."""
        self._seeded = random.Random(seed)

    # -- identity ------------------------------------------------------------------------------------------------

    def ids(self) -> tuple[int, int, tuple[int, ...]]:
        """The server's user, group and supplementary groups: who the first process is."""
        return os.getuid(), os.getgid(), tuple(os.getgroups())

    def capabilities(self) -> tuple[int, int]:
        """The server's effective and bounding capability sets: a container's root has not all of them."""
        effective, _, _, bounding = self._capability_sets()
        return effective, bounding

    def _capability_sets(self) -> tuple[int, int, int, int]:
        """Effective, permitted, inheritable and bounding."""
        sets = {}
        try:
            with open("/proc/self/status", "rb") as status:
                for line in status:
                    if line.startswith(b"Cap"):
                        name, value = line.split(b":")
                        sets[name] = int(value, 16)
        except OSError:
            return 0, 0, 0, 0
        return sets[b"CapEff"], sets[b"CapPrm"], sets[b"CapInh"], sets[b"CapBnd"]

    def become(self, uid: int, gid: int, groups: tuple[int, ...], capabilities: int) -> None:
        """Have the host check files and networks as this user; only root can, and only this thread does."""
        if self._identity is None:
            if os.geteuid():
                return
            self._own_capabilities = self._capability_sets()[:3]
            own = self._own_capabilities[0] & _CAPS_OF_GUEST
            self._identity = (0, os.getegid(), tuple(os.getgroups()), own)
        effective, permitted, inheritable = self._own_capabilities
        wanted = (uid, gid, groups, capabilities & effective & _CAPS_OF_GUEST)
        if wanted == self._identity:
            return
        libc.setfsuid(0)
        libc.setgroups(groups)
        libc.setfsgid(gid)
        libc.setfsuid(uid)
        libc.capset(effective & ~_CAPS_OF_GUEST | wanted[3], permitted, inheritable)
        self._identity = wanted

    # -- /proc ---------------------------------------------------------------------------------------------------

    def read_file(self, path: str, limit: int = 1 << 20) -> bytes:
        """A small file of the host (/proc, /sys)."""
        with translated(), open(path, "rb") as file:
            return file.read(limit)

    def available_memory(self) -> int:
        """Bytes that can be had without swapping (/proc/meminfo, MemAvailable)."""
        for line in self.read_file("/proc/meminfo").splitlines():
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
        return 1 << 62
