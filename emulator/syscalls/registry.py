"""The table of system calls.

Rule: a handler's annotations say how the raw argument registers become Python integers; its return value is the result
(None is 0), a `LinuxError` its failure, a `Wait`, returned or inside a `Block`, its wait.
Numbers are data (`abi/tables`), names are the kernel's.
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

from emulator.cpu.mmu import backend
from emulator.kernel.tasks import Task
from emulator.kernel.waits import Wait

# Conversions, applied once at the edge.
Int = Annotated[int, "s32"]  # int
UInt = Annotated[int, "u32"]  # unsigned int, mode_t, uid_t
Fd = Annotated[int, "s32"]  # file descriptor
Long = Annotated[int, "long"]  # long, off_t, ssize_t: signed, the ISA's width
Size = Annotated[int, "ulong"]  # size_t, unsigned long
Ptr = Annotated[int, "ulong"]  # a guest address
SockLen = Annotated[int, "s32"]  # socklen_t, which the kernel reads as int

Result = int | Wait | None
Handler = Callable[..., Result]
Entry = Callable[[Task, tuple[int, ...]], Result]
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


_CONVERSIONS = {  # cpu's Entry, by the word size in bits
    32: {"s32": b"i", "u32": b"u", "long": b"i", "ulong": b"u"},
    64: {"s32": b"i", "u32": b"u", "long": b"l", "ulong": b"r"},
}


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
    conversions = _CONVERSIONS[bits]
    return backend.Entry(handler, b"".join(conversions[kind] for kind in kinds_of(handler)))


def _first_call(entries: dict[int, Entry], number: int, handler: Handler, bits: int) -> Entry:
    """An entry that compiles itself when it is first called: most programs use few system calls, all must start."""

    def first(t: Task, args: tuple[int, ...]) -> Result:
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
