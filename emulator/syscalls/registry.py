"""The table of system calls.

Rule: a handler's annotations say how the raw argument registers become Python integers; its return value is the result
(None is 0), a `LinuxError` its failure, a `Block` its wait.  Numbers are data (`abi/tables`), names are the kernel's.
Conversions are compiled once for a word size: a handler's entry in a table is called with (task, raw_args) and nothing
is looked up on the way.

    @syscall("read")
    def read(t: Task, fd: Fd, buf: Ptr, count: Size) -> int: ...
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args

from emulator.kernel.tasks import Task

# Conversions, applied once at the edge.
Int = Annotated[int, "s32"]  # int
UInt = Annotated[int, "u32"]  # unsigned int, mode_t, uid_t
Fd = Annotated[int, "s32"]  # file descriptor
Long = Annotated[int, "long"]  # long, off_t, ssize_t: signed, the ISA's width
Size = Annotated[int, "ulong"]  # size_t, unsigned long
Ptr = Annotated[int, "ulong"]  # a guest address
SockLen = Annotated[int, "s32"]  # socklen_t, which the kernel reads as int

Handler = Callable[..., int | None]
Entry = Callable[[Task, tuple[int, ...]], int | None]
H = TypeVar("H", bound=Handler)

_handlers: dict[str, Handler] = {}


class FrozenError(RuntimeError):
    """A handler was registered after the tables had been built."""


_frozen = False


def syscall(*names: str) -> Callable[[H], H]:
    """Register a handler under the kernel's name or names."""

    def register(handler: H) -> H:
        if _frozen:
            raise FrozenError(names)
        for name in names:
            if name in _handlers:
                raise FrozenError(f"{name} is registered twice: {_handlers[name]} and {handler}")
            _handlers[name] = handler
        return handler

    return register


def _expression(kind: str, index: int, bits: int) -> str:
    raw = f"a[{index}]"
    match kind:
        case "s32":
            return f"({raw} & 0xFFFFFFFF ^ 0x80000000) - 0x80000000"
        case "u32":
            return f"{raw} & 0xFFFFFFFF"
        case "long":
            sign = 1 << (bits - 1)
            return f"({raw} ^ {sign:#x}) - {sign:#x}"
        case "ulong":
            return raw
    raise ValueError(f"unknown conversion {kind!r}")


def kinds_of(handler: Handler) -> list[str]:
    """The conversion of each parameter after the task."""
    kinds = []
    for parameter in list(inspect.signature(handler).parameters.values())[1:]:
        annotation = parameter.annotation
        if isinstance(annotation, str):
            annotation = eval(annotation, handler.__globals__)  # the module's own source text
        kinds.append(get_args(annotation)[1])
    return kinds


def compile_entry(handler: Handler, bits: int) -> Entry:
    """The handler as a function of (task, raw args)."""
    kinds = kinds_of(handler)
    if not kinds:
        source = "lambda t, a: handler(t)"
    else:
        arguments = ", ".join(_expression(kind, index, bits) for index, kind in enumerate(kinds))
        source = f"lambda t, a: handler(t, {arguments})"
    entry: Entry = eval(source, {"handler": handler})  # built from the fixed words above
    return entry


def _first_call(entries: dict[int, Entry], number: int, handler: Handler, bits: int) -> Entry:
    """An entry that compiles itself when it is first called: most programs use few system calls, all must start."""

    def first(t: Task, args: tuple[int, ...]) -> int | None:
        entry = entries[number] = compile_entry(handler, bits)
        return entry(t, args)

    return first


@dataclass(frozen=True, slots=True)
class Table:
    """The system calls of one ISA: by number, compiled; and every number's name."""

    entries: Mapping[int, Entry]
    names: Mapping[int, str]

    def name(self, number: int) -> str:
        """The kernel's name, or a number in strace's shape."""
        return self.names.get(number, f"syscall_{number:#x}")


def load_all() -> None:
    """Import every family; after this the registry is frozen."""
    global _frozen
    if _frozen:
        return
    package = importlib.import_module("emulator.syscalls")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    _frozen = True


_tables: dict[tuple[Any, int], Table] = {}


def table_for(names: Mapping[int, str], bits: int) -> Table:
    """The table of an ISA; families are loaded on first use."""
    load_all()
    key = (id(names), bits)
    if key not in _tables:
        entries: dict[int, Entry] = {}
        for number, name in names.items():
            if name in _handlers:
                entries[number] = _first_call(entries, number, _handlers[name], bits)
        _tables[key] = Table(entries, names)
    return _tables[key]


def registered() -> Iterable[str]:
    """The names of all handlers (README's support table)."""
    load_all()
    return sorted(_handlers)


def handler_of(name: str) -> Handler | None:
    """The Python function behind a name (tests, strace formatting)."""
    load_all()
    return _handlers.get(name)
