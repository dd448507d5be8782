"""How strace(1) prints the arguments of system calls: renderers, and which argument has which.

Rule: a renderer gets the task, the raw value, all raw arguments and the result (None before the call has returned); it
returns the text, or None to leave the argument out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from emulator.abi.fcntl import AT, F, O
from emulator.abi.memory import Prot
from emulator.abi.mman import Madvise, Map
from emulator.abi.polling import ClockId
from emulator.abi.signals import signal_name
from emulator.abi.sockets import SOCK_CLOEXEC, SOCK_NONBLOCK, AddressFamily, SocketType
from emulator.errors import EmulatorError

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task

STRING_LIMIT = 32
_LIMIT_OF_PATHS = 4096
Renderer = Callable[["Task", int, tuple[int, ...], int | None], str | None]  # task, value, all args, result if known


def quoted(data: bytes, limit: int = STRING_LIMIT) -> str:
    """A C string literal, cut as strace cuts."""
    cut = data[:limit]
    out = []
    for i, byte in enumerate(cut):
        char = chr(byte)
        if char in '"\\':
            out.append("\\" + char)
        elif char in "\t\n\v\f\r":
            out.append({"\t": "\\t", "\n": "\\n", "\v": "\\v", "\f": "\\f", "\r": "\\r"}[char])
        elif 32 <= byte < 127:
            out.append(char)
        else:
            following = cut[i + 1 : i + 2]
            out.append(f"\\{byte:03o}" if following.isdigit() else f"\\{byte:o}")
    return '"' + "".join(out) + '"' + ("..." if len(data) > limit else "")


def path(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    if not value:
        return "NULL"
    try:
        return quoted(t.memory.read_cstring(value, _LIMIT_OF_PATHS), _LIMIT_OF_PATHS)
    except EmulatorError:
        return f"{value:#x}"


def _sent(count_at: int) -> Renderer:
    """A buffer whose length is another argument."""

    def render(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
        try:
            data = t.memory.read(value, min(args[count_at], STRING_LIMIT + 1))
        except EmulatorError:
            return f"{value:#x}" if value else "NULL"
        return quoted(data) + ("..." if len(data) <= STRING_LIMIT < args[count_at] else "")

    return render


def received(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    """A buffer that holds `result` bytes now."""
    if result is None or result < 0:
        return f"{value:#x}" if value else "NULL"
    try:
        return quoted(t.memory.read(value, min(result, STRING_LIMIT + 1)))
    except EmulatorError:
        return f"{value:#x}"


def _dirfd(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    number = signed(value, 32)
    return "AT_FDCWD" if number == AT.FDCWD else str(number)


def _strings(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    """argv: a vector of strings."""
    if not value:
        return "NULL"
    out: list[str] = []
    try:
        for i in range(33):
            pointer = t.memory.read_ptr(value + i * t.memory.pointer_size)
            if not pointer:
                return "[" + ", ".join(out) + "]"
            out.append(quoted(t.memory.read_cstring(pointer, _LIMIT_OF_PATHS)))
    except EmulatorError:
        return f"{value:#x}"
    return "[" + ", ".join(out[:32]) + ", ...]"


def _environment(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    """envp: counted, as strace does."""
    try:
        count = next(i for i in range(65536) if not t.memory.read_ptr(value + i * t.memory.pointer_size))
    except (EmulatorError, StopIteration):
        return f"{value:#x}"
    return f"{value:#x} /* {count} vars */"


def flags_text(value: int, names: dict[int, str], zero: str = "0") -> str:
    """Bits by name, the rest in hexadecimal."""
    out, rest = [], value
    for bit, name in names.items():
        if bit and rest & bit == bit:
            out.append(name)
            rest &= ~bit
    if rest:
        out.append(f"{rest:#x}")
    return "|".join(out) or zero


_PROT = {int(p): f"PROT_{p.name}" for p in Prot if p}
_MAP = {int(m): f"MAP_{'32BIT' if m is Map.BITS_32 else m.name}" for m in Map if m not in (Map.TYPE, Map.DROPPABLE)}
_OPEN_NAMES = (
    *("CREAT", "EXCL", "NOCTTY", "TRUNC", "APPEND", "NONBLOCK", "SYNC", "DSYNC", "DIRECT", "LARGEFILE", "TMPFILE"),
    *("DIRECTORY", "NOFOLLOW", "NOATIME", "CLOEXEC", "PATH"),
)
_OPEN_BITS = {int(getattr(O, name)): f"O_{name}" for name in _OPEN_NAMES if hasattr(O, name)}


def _prot(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return flags_text(value, _PROT, "PROT_NONE")


def _map_flags(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return flags_text(value, _MAP)


def _open_flags(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    access = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")[value & 3]
    bits = {t.arch.abi.open_flags.get(name.removeprefix("O_"), bit): name for bit, name in _OPEN_BITS.items()}
    rest = flags_text(value & ~3, bits, "")
    return access + (f"|{rest}" if rest else "")


def _octal(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return f"0{value & 0xFFFFFFFF:o}" if value else "000"


def _signal(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return signal_name(signed(value, 32)) if value else "0"


def _madvise(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    try:
        return f"MADV_{Madvise(signed(value, 32)).name}"
    except ValueError:
        return f"{value:#x}"


def _whence(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    names = ("SEEK_SET", "SEEK_CUR", "SEEK_END", "SEEK_DATA", "SEEK_HOLE")
    return names[value] if value < len(names) else f"{value:#x}"


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def decimal(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return str(signed(value, 32))


def unsigned(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return str(value)


def pointer(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return f"{value:#x}" if value else "NULL"


def long(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return str(signed(value, t.arch.bits))


def hexadecimal(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return f"{value:#x}" if value else "0"


def choice(names: dict[int, str], prefix: str = "") -> Renderer:
    """One name."""

    def render(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
        name = names.get(signed(value, 32))
        return f"{prefix}{name}" if name is not None else f"{value:#x}"

    return render


def bits(names: dict[int, str], zero: str = "0") -> Renderer:
    """Names joined by bars."""

    def render(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
        return flags_text(value & 0xFFFFFFFF, names, zero)

    return render


def _creation_mode(flags_at: int) -> Renderer:
    """The mode of open(2), which is there only with O_CREAT or O_TMPFILE."""

    def render(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str | None:
        return _octal(t, value, args, result) if args[flags_at] & (O.CREAT | 0o20000000) else None

    return render


def _access_mode(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return flags_text(value & 0xFFFFFFFF, {4: "R_OK", 2: "W_OK", 1: "X_OK"}, "F_OK")


def _offset(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return f"{value:#x}" if value else "0"


_FILE_TYPES = {
    0o14: "S_IFSOCK",
    0o12: "S_IFLNK",
    0o10: "S_IFREG",
    6: "S_IFBLK",
    4: "S_IFDIR",
    2: "S_IFCHR",
    1: "S_IFIFO",
}


def _stat(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    """struct stat, its three telling members."""
    if result != 0 or not value:
        return pointer(t, value, args, result)
    layout = t.arch.abi.stat
    try:
        found = layout.unpack(t.memory.read(value, layout.size))
    except EmulatorError:
        return f"{value:#x}"
    mode = found["st_mode"]
    kind = _FILE_TYPES.get(mode >> 12, f"{mode >> 12:#o}")
    if kind in ("S_IFCHR", "S_IFBLK"):
        device = found["st_rdev"]
        major = (device >> 8 & 0xFFF) | (device >> 32 & ~0xFFF)
        minor = (device & 0xFF) | (device >> 12 & ~0xFF)
        last = f"st_rdev=makedev({major:#x}, {minor:#x})"
    else:
        last = f"st_size={found['st_size']}"
    return f"{{st_mode={kind}|0{mode & 0o7777:o}, {last}, ...}}"


def _limit(n: int) -> str:
    if n == (1 << 64) - 1:
        return "RLIM64_INFINITY"
    return f"{n // 1024}*1024" if n > 1024 and n % 1024 == 0 else str(n)


def _rlimit(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    if not value or (result is not None and result < 0):
        return pointer(t, value, args, result)
    try:
        soft, hard = t.memory.read_u64(value), t.memory.read_u64(value + 8)
    except EmulatorError:
        return f"{value:#x}"
    return f"{{rlim_cur={_limit(soft)}, rlim_max={_limit(hard)}}}"


def _timespec(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    if not value:
        return "NULL"
    try:
        seconds, nanoseconds = t.memory.read_struct(value, "ll")
    except EmulatorError:
        return f"{value:#x}"
    return f"{{tv_sec={seconds}, tv_nsec={nanoseconds}}}"


def _signal_set(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    if not value:
        return "NULL"
    try:
        mask = t.memory.read_u64(value)
    except EmulatorError:
        return f"{value:#x}"
    inverted = mask.bit_count() > 32
    shown = ~mask & ((1 << 64) - 1) if inverted else mask
    names = " ".join(signal_name(n + 1).removeprefix("SIG") for n in range(64) if shown >> n & 1)
    return f"{'~' if inverted else ''}[{names}]"


def _clone_flags(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    text = flags_text(value & ~0xFF, _CLONE, "")
    signal = signal_name(value & 0xFF) if value & 0xFF else ""
    return "|".join(word for word in (text, signal) if word) or "0"


def _futex(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    name = _FUTEX.get(value & 0x7F, f"{value & 0x7F:#x}")
    return name + ("_PRIVATE" if value & 0x80 else "") + ("|FUTEX_CLOCK_REALTIME" if value & 0x100 else "")


def _socket_type(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    kinds = {int(kind): f"SOCK_{kind.name}" for kind in SocketType}
    text = kinds.get(value & 0xF, f"{value & 0xF:#x}")
    return (
        text + ("|SOCK_CLOEXEC" if value & SOCK_CLOEXEC else "") + ("|SOCK_NONBLOCK" if value & SOCK_NONBLOCK else "")
    )


_CLONE = {
    0x100: "CLONE_VM",
    0x200: "CLONE_FS",
    0x400: "CLONE_FILES",
    0x800: "CLONE_SIGHAND",
    0x2000: "CLONE_PTRACE",
    0x4000: "CLONE_VFORK",
    0x8000: "CLONE_PARENT",
    0x10000: "CLONE_THREAD",
    0x20000: "CLONE_NEWNS",
    0x40000: "CLONE_SYSVSEM",
    0x80000: "CLONE_SETTLS",
    0x100000: "CLONE_PARENT_SETTID",
    0x200000: "CLONE_CHILD_CLEARTID",
    0x1000000: "CLONE_CHILD_SETTID",
}
_FUTEX = dict(
    enumerate(
        f"FUTEX_{word}"
        for word in (
            *("WAIT", "WAKE", "FD", "REQUEUE", "CMP_REQUEUE", "WAKE_OP", "LOCK_PI", "UNLOCK_PI", "TRYLOCK_PI"),
            *("WAIT_BITSET", "WAKE_BITSET", "WAIT_REQUEUE_PI", "CMP_REQUEUE_PI", "LOCK_PI2"),
        )
    )
)
_AT = {
    AT.SYMLINK_NOFOLLOW: "AT_SYMLINK_NOFOLLOW",
    AT.SYMLINK_FOLLOW: "AT_SYMLINK_FOLLOW",
    AT.NO_AUTOMOUNT: "AT_NO_AUTOMOUNT",
    AT.EMPTY_PATH: "AT_EMPTY_PATH",
}
_RESOURCES = dict(
    enumerate(
        f"RLIMIT_{word}"
        for word in (
            *("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS"),
            *("SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"),
        )
    )
)
_FAMILIES = {int(family): f"AF_{family.name}" for family in AddressFamily}
_CLOCKS = {int(clock): f"CLOCK_{clock.name}" for clock in ClockId}
_FCNTL = {value: f"F_{name}" for name, value in vars(F).items() if isinstance(value, int)}
_HOW = {0: "SIG_BLOCK", 1: "SIG_UNBLOCK", 2: "SIG_SETMASK"}
_ARCH_PRCTL = {0x1001: "ARCH_SET_GS", 0x1002: "ARCH_SET_FS", 0x1003: "ARCH_GET_FS", 0x1004: "ARCH_GET_GS"}
_WAIT = {1: "WNOHANG", 2: "WSTOPPED", 4: "WEXITED", 8: "WCONTINUED", 0x1000000: "WNOWAIT"}
_TTY = {0x5401: "TCGETS", 0x5402: "TCSETS", 0x5403: "TCSETSW", 0x540F: "TIOCGPGRP", 0x5410: "TIOCSPGRP"}
_TTY |= {0x5413: "TIOCGWINSZ", 0x5414: "TIOCSWINSZ", 0x541B: "FIONREAD", 0x5421: "FIONBIO", 0x5451: "FIOCLEX"}
_SHUTDOWN = {0: "SHUT_RD", 1: "SHUT_WR", 2: "SHUT_RDWR"}
_EPOLL = {1: "EPOLL_CTL_ADD", 2: "EPOLL_CTL_DEL", 3: "EPOLL_CTL_MOD"}
_RANDOM = {1: "GRND_NONBLOCK", 2: "GRND_RANDOM"}

#: By parameter name, for every system call.
BY_NAME: dict[str, Renderer] = {
    "path": path,
    "pathname": path,
    "filename": path,
    "oldpath": path,
    "newpath": path,
    "old": path,
    "new": path,
    "target": path,
    "linkpath": path,
    "dirfd": _dirfd,
    "olddirfd": _dirfd,
    "newdirfd": _dirfd,
    "mode": _octal,
    "signum": _signal,
    "sig": _signal,
    "signo": _signal,
    "prot": _prot,
    "argv": _strings,
    "envp": _environment,
    "whence": _whence,
}
#: By system call and position, where the name is not enough.
BY_CALL: dict[tuple[str, int], Renderer] = {
    ("read", 1): received,
    ("pread64", 1): received,
    ("recvfrom", 1): received,
    ("readlink", 1): received,
    ("readlinkat", 2): received,
    ("getcwd", 0): received,
    ("getrandom", 0): received,
    ("write", 1): _sent(2),
    ("pwrite64", 1): _sent(2),
    ("sendto", 1): _sent(2),
    ("mmap", 3): _map_flags,
    ("open", 1): _open_flags,
    ("openat", 2): _open_flags,
    ("madvise", 2): _madvise,
    ("kill", 1): _signal,
    ("tgkill", 2): _signal,
    ("rt_sigaction", 0): _signal,
    ("tkill", 1): _signal,
    ("openat", 3): _creation_mode(2),
    ("open", 2): _creation_mode(1),
    ("access", 1): _access_mode,
    ("faccessat", 2): _access_mode,
    ("faccessat2", 2): _access_mode,
    ("mmap", 5): _offset,
    ("fstat", 1): _stat,
    ("stat", 1): _stat,
    ("lstat", 1): _stat,
    ("newfstatat", 2): _stat,
    ("newfstatat", 3): bits(_AT),
    ("unlinkat", 2): bits({AT.REMOVEDIR: "AT_REMOVEDIR"}),
    ("arch_prctl", 0): choice(_ARCH_PRCTL),
    ("prlimit64", 1): choice(_RESOURCES),
    ("prlimit64", 2): _rlimit,
    ("prlimit64", 3): _rlimit,
    ("getrlimit", 0): choice(_RESOURCES),
    ("getrlimit", 1): _rlimit,
    ("getrandom", 2): bits(_RANDOM),
    ("clock_gettime", 0): choice(_CLOCKS),
    ("clock_nanosleep", 0): choice(_CLOCKS),
    ("clock_nanosleep", 2): _timespec,
    ("nanosleep", 0): _timespec,
    ("rt_sigprocmask", 0): choice(_HOW),
    ("rt_sigprocmask", 1): _signal_set,
    ("clone", 0): _clone_flags,
    ("futex", 1): _futex,
    ("socket", 0): choice(_FAMILIES),
    ("socket", 1): _socket_type,
    ("socketpair", 0): choice(_FAMILIES),
    ("socketpair", 1): _socket_type,
    ("shutdown", 1): choice(_SHUTDOWN),
    ("epoll_ctl", 1): choice(_EPOLL),
    ("fcntl", 1): choice(_FCNTL),
    ("wait4", 2): bits(_WAIT),
    ("ioctl", 1): choice(_TTY),
    ("execve", 0): path,
    ("execve", 1): _strings,
    ("execve", 2): _environment,
}
NUMBERS_NOT_PATHS = {("mremap", 1), ("mremap", 2), ("prlimit64", 2), ("prlimit64", 3), ("migrate_pages", 2)}
#: Printed when the call has returned: what the kernel stores through them.
LATE = frozenset({received, _stat, _rlimit})
