"""/proc: the top, and what is there once.

Rule: what describes processes is the guest's; what describes the machine is the host's, read when asked for, unless
it would contradict the guest.
Source: man 5 proc; fs/proc/root.c, fs/proc/generic.c.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from emulator.abi.errno import E
from emulator.errors import LinuxError
from emulator.kernel.credentials import CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN
from emulator.kernel.files import ipctext
from emulator.kernel.files.description import VirtualStat
from emulator.kernel.files.procpid import ProcessDirectory, process_named
from emulator.kernel.files.virtual import (
    DT_DIR,
    DT_LNK,
    DT_REG,
    Node,
    VirtualDirectory,
    VirtualFile,
    VirtualLink,
)
from emulator.kernel.tasks import PID_MAX

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task


class SelfLink(VirtualLink):
    """/proc/self and /proc/thread-self."""

    __slots__ = ("_thread",)

    def __init__(self, parent: Node, thread: bool) -> None:
        super().__init__(b"thread-self" if thread else b"self", parent)
        self._thread = thread

    def target(self, t: Task) -> bytes:
        return b"%d/task/%d" % (t.pid, t.tid) if self._thread else b"%d" % t.pid


class TextLink(VirtualLink):
    """A link with a fixed text."""

    __slots__ = ("_text",)

    def __init__(self, name: bytes, parent: Node, text: bytes) -> None:
        super().__init__(name, parent)
        self._text = text

    def target(self, t: Task) -> bytes:
        return self._text


class GlobalFile(VirtualFile):
    """A file whose text a function makes."""

    __slots__ = ("_make",)

    def __init__(self, name: bytes, parent: Node, make: Callable[[Task], str]) -> None:
        super().__init__(name, stat.S_IFREG | 0o444, parent)
        self._make = make

    def content(self, t: Task) -> bytes:
        return self._make(t).encode(errors="surrogateescape")


class HostText(VirtualFile):
    """A small text file of the host, for reading."""

    __slots__ = ("_host_path",)

    def __init__(self, name: bytes, parent: Node, host_path: str, mode: int = 0o444) -> None:
        super().__init__(name, stat.S_IFREG | (mode & 0o444), parent)
        self._host_path = host_path

    def content(self, t: Task) -> bytes:
        return t.kernel.host.read_file(self._host_path)


class HostTree(VirtualDirectory):
    """A directory of the host's /proc, for reading."""

    __slots__ = ("_host_path",)

    def __init__(self, name: bytes, parent: Node, host_path: str) -> None:
        super().__init__(name, stat.S_IFDIR | 0o555, parent)
        self._host_path = host_path

    def file(self, name: bytes, path: str, mode: int) -> Node:
        """The node of a regular file of the host's."""
        return HostText(name, self, path, mode)

    def lookup(self, t: Task, name: bytes) -> Node | None:
        path = f"{self._host_path}/{name.decode(errors='surrogateescape')}"
        host = t.kernel.host
        try:
            mode = host.stat(host.encode(path), None, False).st_mode
        except LinuxError:
            return None
        if stat.S_ISDIR(mode):
            return type(self)(name, self, path)
        if stat.S_ISLNK(mode):
            return TextLink(name, self, host.readlink(host.encode(path)))
        return self.file(name, path, mode)

    def entries(self, t: Task) -> Iterable[tuple[bytes, int]]:
        host = t.kernel.host
        for name in host.listdir(self._host_path):
            mode = host.stat(host.encode(f"{self._host_path}/") + name, None, False).st_mode
            yield name, DT_DIR if stat.S_ISDIR(mode) else DT_LNK if stat.S_ISLNK(mode) else DT_REG


class Setting(VirtualFile):
    """A file of /proc/sys: the guest's own copy of the host's."""

    __slots__ = ("_path",)

    overridable = False  # test_perm() of fs/proc/proc_sysctl.c
    splices = True

    def __init__(self, name: bytes, parent: Node, path: str, mode: int) -> None:
        super().__init__(name, stat.S_IFREG | mode & 0o666, parent)
        self._path = path

    def content(self, t: Task) -> bytes:
        return t.kernel.sysctls.text(self._path)

    def store(self, t: Task, data: bytes) -> None:
        t.kernel.sysctls.store(self._path, data)


class NameSetting(Setting):
    """The machine's names, which sethostname(2) and setdomainname(2) set too."""

    __slots__ = ()

    def content(self, t: Task) -> bytes:
        return str(getattr(t.kernel, _SYS_NAMES[self._path])).encode(errors="surrogateescape") + b"\n"

    def store(self, t: Task, data: bytes) -> None:
        text = data.split(b"\0", 1)[0].split(b"\n", 1)[0][:64]
        setattr(t.kernel, _SYS_NAMES[self._path], text.decode(errors="surrogateescape"))


class LastPid(Setting):
    """kernel/ns_last_pid: a write chooses the number behind which the next process is numbered (pid_namespaces(7))."""

    __slots__ = ()

    def content(self, t: Task) -> bytes:
        return b"%d\n" % t.kernel.tasks.last_tid

    def store(self, t: Task, data: bytes) -> None:
        if not (t.credentials.capable(CAP_SYS_ADMIN) or t.credentials.capable(CAP_CHECKPOINT_RESTORE)):
            raise LinuxError(E.EPERM)
        if not data.strip().isdigit() or int(data) >= PID_MAX:
            raise LinuxError(E.EINVAL)
        t.kernel.tasks.set_next(int(data) + 1)


class SettingsTree(HostTree):
    """/proc/sys and the directories in it; some files tell of the guest's machine."""

    __slots__ = ()

    def file(self, name: bytes, path: str, mode: int) -> Node:
        below = path.removeprefix("/proc/sys/")
        make = _SYS_OWN.get(below)
        if below in _SYS_NAMES:
            return NameSetting(name, self, below, mode)
        if below == "kernel/ns_last_pid":
            return LastPid(name, self, below, mode)
        if below.endswith("_next_id"):
            mode |= 0o200  # ipc_permissions: for who may restore checkpoints
        return GlobalFile(name, self, make) if make is not None else Setting(name, self, below, mode)


class IpcDirectory(VirtualDirectory):
    """/proc/sysvipc."""

    __slots__ = ()

    def __init__(self, parent: Node) -> None:
        super().__init__(b"sysvipc", stat.S_IFDIR | 0o555, parent)

    def lookup(self, t: Task, name: bytes) -> Node | None:
        make = ipctext.FILES.get(name)
        return GlobalFile(name, self, make) if make is not None else None

    def entries(self, t: Task) -> Iterable[tuple[bytes, int]]:
        return [(name, DT_REG) for name in ipctext.FILES]


def _uptime(t: Task) -> str:
    seconds = t.kernel.clock.monotonic_ns() // 10_000_000
    return f"{seconds // 100}.{seconds % 100:02} {seconds // 100}.{seconds % 100:02}\n"


def _loadavg(t: Task) -> str:
    host = t.kernel.host.read_file("/proc/loadavg").decode().split()
    last = max((task.tid for task in t.kernel.tasks), default=0)
    return f"{' '.join(host[:3])} 1/{len(t.kernel.tasks)} {last}\n"


def _version(t: Task) -> str:
    return t.kernel.host.read_file("/proc/version").decode(errors="replace")


def _cpuinfo(t: Task) -> str:
    text: str = getattr(t.arch, "cpuinfo", "")
    return text or "processor\t: 0\n\n"


def _locks(t: Task) -> str:
    lines = []
    for number, ((device, inode), lock) in enumerate(t.kernel.vfs.locks.all_locks(), 1):
        kind = "WRITE" if lock.kind == 1 else "READ "
        end = "EOF" if lock.end == (1 << 63) - 1 else lock.end
        where = f"{device >> 8 & 0xFFF:02x}:{device & 0xFF:02x}:{inode}"
        lines.append(f"{number}: POSIX  ADVISORY  {kind} {lock.pid} {where} {lock.start} {end}\n")
    return "".join(lines)


def _stat(t: Task) -> str:
    """The host's, with one CPU: the guest runs on one."""
    lines = t.kernel.host.read_file("/proc/stat").decode().splitlines(True)
    return "".join(line for line in lines if not line.startswith("cpu") or line.startswith(("cpu ", "cpu0")))


_OWN: dict[bytes, Callable[[Task], str]] = {
    b"uptime": _uptime,
    b"loadavg": _loadavg,
    b"version": _version,
    b"cpuinfo": _cpuinfo,
    b"locks": _locks,
    b"stat": _stat,
}
_FROM_HOST = (
    b"buddyinfo", b"cgroups", b"cmdline", b"config.gz", b"consoles", b"crypto", b"devices", b"diskstats",
    b"filesystems", b"interrupts", b"iomem", b"ioports", b"kallsyms", b"meminfo", b"misc", b"modules", b"partitions",
    b"softirqs", b"swaps", b"timer_list", b"vmstat", b"zoneinfo",
)  # fmt: skip
_SYS_NAMES = {"kernel/hostname": "hostname", "kernel/domainname": "domainname"}
_SYS_OWN: dict[str, Callable[[Task], str]] = {
    "kernel/random/uuid": lambda t: _uuid(t),
    "kernel/randomize_va_space": lambda t: "2\n" if t.kernel.config.aslr else "0\n",
    "kernel/yama/ptrace_scope": lambda t: "0\n",
}


def _uuid(t: Task) -> str:
    raw = bytearray(t.kernel.host.random(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}\n"


class ProcRoot(VirtualDirectory):
    """/proc."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(b"/proc", stat.S_IFDIR | 0o555, None)

    def stat(self, t: Task) -> VirtualStat:
        found = super().stat(t)
        return VirtualStat(found.st_mode, 1, st_nlink=2 + len(t.kernel.groups), st_mtime_ns=found.st_mtime_ns)

    def lookup(self, t: Task, name: bytes) -> Node | None:
        if name.isdigit():
            task = process_named(t, name)
            return ProcessDirectory(name, self, task) if task is not None else None
        match name:
            case b"self":
                return SelfLink(self, thread=False)
            case b"thread-self":
                return SelfLink(self, thread=True)
            case b"mounts":
                return TextLink(name, self, b"self/mounts")
            case b"net":
                return TextLink(name, self, b"self/net")
            case b"sysvipc":
                return IpcDirectory(self)
            case b"sys":
                return SettingsTree(name, self, "/proc/sys")
        if name in _OWN:
            return GlobalFile(name, self, _OWN[name])
        if name in _FROM_HOST and t.kernel.host.exists("/proc/" + name.decode()):
            return HostText(name, self, "/proc/" + name.decode())
        return None

    def entries(self, t: Task) -> Iterable[tuple[bytes, int]]:
        for tgid in sorted(t.kernel.groups):
            yield b"%d" % tgid, DT_DIR
        for name in (b"self", b"thread-self", b"mounts", b"net"):
            yield name, DT_LNK
        yield b"sys", DT_DIR
        yield b"sysvipc", DT_DIR
        for name in _OWN:
            yield name, DT_REG
        for name in _FROM_HOST:
            if t.kernel.host.exists("/proc/" + name.decode()):
                yield name, DT_REG
