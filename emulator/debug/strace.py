"""--strace: one line a system call, in strace's shape.

Rule: how an argument is printed comes from the parameter's name and conversion in the handler (`path` is a string, `fd`
a number, a pointer hexadecimal); only what a name cannot tell is in a table.  Source: strace(1).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from emulator.abi.errno import E
from emulator.abi.fcntl import AT, O
from emulator.abi.memory import Prot
from emulator.abi.mman import Madvise, Map
from emulator.abi.signals import signal_name
from emulator.debug.errno_text import TEXT
from emulator.errors import EmulatorError
from emulator.syscalls.registry import handler_of, kinds_of

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task

STRING_LIMIT = 32
_LIMIT_OF_PATHS = 4096
_COLUMN = 40
Renderer = Callable[["Task", int, tuple[int, ...], int | None], str]  # task, value, all args, result if known


class Sink(Protocol):
    """Where the lines go."""

    def __call__(self, line: str, /) -> None: ...


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


def _path(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
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


def _received(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    """A buffer that holds `result` bytes now."""
    if result is None or result < 0:
        return f"{value:#x}" if value else "NULL"
    try:
        return quoted(t.memory.read(value, min(result, STRING_LIMIT + 1)))
    except EmulatorError:
        return f"{value:#x}"


def _dirfd(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    number = _signed(value, 32)
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
    return signal_name(_signed(value, 32)) if value else "0"


def _madvise(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    try:
        return f"MADV_{Madvise(_signed(value, 32)).name}"
    except ValueError:
        return f"{value:#x}"


def _whence(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    names = ("SEEK_SET", "SEEK_CUR", "SEEK_END", "SEEK_DATA", "SEEK_HOLE")
    return names[value] if value < len(names) else f"{value:#x}"


#: By parameter name, for every system call.
_BY_NAME: dict[str, Renderer] = {
    "path": _path,
    "pathname": _path,
    "filename": _path,
    "oldpath": _path,
    "newpath": _path,
    "old": _path,
    "new": _path,
    "target": _path,
    "linkpath": _path,
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
_BY_CALL: dict[tuple[str, int], Renderer] = {
    ("read", 1): _received,
    ("pread64", 1): _received,
    ("recvfrom", 1): _received,
    ("readlink", 1): _received,
    ("readlinkat", 2): _received,
    ("getcwd", 0): _received,
    ("getrandom", 0): _received,
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
    ("execve", 0): _path,
    ("execve", 1): _strings,
    ("execve", 2): _environment,
}
_NUMBERS_NOT_PATHS = {("mremap", 1), ("mremap", 2), ("prlimit64", 2), ("prlimit64", 3), ("migrate_pages", 2)}
_NO_RETURN = {"exit", "exit_group", "rt_sigreturn"}
_ADDRESS_RESULTS = {"mmap", "mremap", "brk", "shmat"}


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one system call is printed."""

    renderers: tuple[Renderer, ...]
    late: bool  # an argument can be printed only once the call has returned


def _decimal(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return str(_signed(value, 32))


def _unsigned(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return str(value)


def _pointer(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return f"{value:#x}" if value else "NULL"


def _long(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return str(_signed(value, t.arch.bits))


def _hexadecimal(t: Task, value: int, args: tuple[int, ...], result: int | None) -> str:
    return f"{value:#x}" if value else "0"


def _shape(name: str) -> _Shape:
    handler = handler_of(name)
    if handler is None:
        return _Shape((_hexadecimal,) * 6, False)
    renderers = []
    parameters = list(inspect.signature(handler).parameters.values())[1:]
    for i, (parameter, kind) in enumerate(zip(parameters, kinds_of(handler), strict=True)):
        annotation = str(parameter.annotation)
        chosen = _BY_CALL.get((name, i))
        if chosen is None and (name, i) not in _NUMBERS_NOT_PATHS:
            chosen = _BY_NAME.get(parameter.name)
            if chosen is _path and "Ptr" not in annotation:
                chosen = None
        if chosen is None:
            if "Ptr" in annotation:
                chosen = _pointer
            elif "flags" in parameter.name:
                chosen = _hexadecimal
            else:
                chosen = {"s32": _decimal, "long": _long}.get(kind, _unsigned)
        renderers.append(chosen)
    return _Shape(tuple(renderers), _received in renderers)


class Strace:
    """The tracer the machine calls: `entry` before the handler runs, `leave` with the result register."""

    def __init__(self, sink: Sink, *, clock: Callable[[], int] | None = None) -> None:
        self._sink = sink
        self._clock = clock
        self._shapes: dict[str, _Shape] = {}
        self._begun: dict[object, str] = {}  # TaskUid -> the line so far
        self._several = False

    def entry(self, t: Task) -> None:
        """The call begins."""
        name = t.arch.syscalls.get(t.call.number, f"syscall_{t.call.number:#x}")
        shape = self._shape_of(name)
        text = "" if shape.late else self._arguments(t, shape, None)
        if name in _NO_RETURN:
            self._line(t, f"{name}({self._arguments(t, shape, None)})", "?")
            return
        self._begun[t.uid] = text

    def leave(self, t: Task, raw: int) -> None:
        """The call has returned `raw` in the result register."""
        name = t.arch.syscalls.get(t.call.number, f"syscall_{t.call.number:#x}")
        text = self._begun.pop(t.uid, None)
        if name in _NO_RETURN:
            return
        shape = self._shape_of(name)
        result = _signed(raw, t.arch.bits)
        if text is None or shape.late:
            text = self._arguments(t, shape, result)
        self._line(t, f"{name}({text})", self._result(t, name, result))

    def exited(self, t: Task, status: int) -> None:
        """A process is gone."""
        what = f"killed by {signal_name(status & 0x7F)}" if status & 0x7F else f"exited with {status >> 8 & 0xFF}"
        self._emit(t, f"+++ {what} +++")

    def _shape_of(self, name: str) -> _Shape:
        shape = self._shapes.get(name)
        if shape is None:
            shape = self._shapes[name] = _shape(name)
        return shape

    @staticmethod
    def _arguments(t: Task, shape: _Shape, result: int | None) -> str:
        args = tuple(t.call.args)
        return ", ".join(render(t, value, args, result) for render, value in zip(shape.renderers, args, strict=False))

    @staticmethod
    def _result(t: Task, name: str, result: int) -> str:
        if -4096 < result < 0:
            errno = next((e for e, number in t.arch.errno.items() if number == -result), None)
            if errno is None:
                return f"-1 (errno {-result})"
            if errno.name.startswith("ERESTART"):
                return f"? {errno.name} (To be restarted)"
            return f"-1 {errno.name} ({TEXT.get(E(errno), 'Unknown error')})"
        if name in _ADDRESS_RESULTS:
            return f"{result & ((1 << t.arch.bits) - 1):#x}"
        return str(result)

    def _line(self, t: Task, call: str, result: str) -> None:
        self._emit(t, f"{call:<{_COLUMN - 1}} = {result}")

    def _emit(self, t: Task, text: str) -> None:
        self._several = self._several or len(t.kernel.tasks) > 1
        prefix = f"{self._clock()} " if self._clock is not None else ""
        if self._several:
            prefix += f"[pid {t.tid:5}] "
        self._sink(prefix + text)
