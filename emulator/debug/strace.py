"""--strace: one line a system call, in strace's shape.

Rule: how an argument is printed comes from the parameter's name and conversion in the handler (`path` is a string, `fd`
a number, a pointer hexadecimal); what a name cannot tell is in `strace_arguments`.  Source: strace(1).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from emulator.abi.errno import E
from emulator.abi.signals import signal_name
from emulator.debug import strace_arguments as shown
from emulator.debug.errno_text import TEXT
from emulator.debug.strace_arguments import Renderer
from emulator.syscalls.registry import handler_of, kinds_of

if TYPE_CHECKING:
    from emulator.kernel.tasks import Task

_COLUMN = 40
_NO_RETURN = {"exit", "exit_group", "rt_sigreturn"}
_ADDRESS_RESULTS = {"mmap", "mremap", "brk", "shmat"}


class Sink(Protocol):
    """Where the lines go."""

    def __call__(self, line: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one system call is printed."""

    renderers: tuple[Renderer, ...]
    late: bool  # an argument can be printed only once the call has returned


def _shape(name: str) -> _Shape:
    handler = handler_of(name)
    if handler is None:
        return _Shape((shown.hexadecimal,) * 6, False)
    renderers = []
    parameters = list(inspect.signature(handler).parameters.values())[1:]
    for i, (parameter, kind) in enumerate(zip(parameters, kinds_of(handler), strict=True)):
        annotation = str(parameter.annotation)
        chosen = shown.BY_CALL.get((name, i))
        if chosen is None and (name, i) not in shown.NUMBERS_NOT_PATHS:
            chosen = shown.BY_NAME.get(parameter.name)
            if chosen is shown.path and "Ptr" not in annotation:
                chosen = None
        if chosen is None:
            if "Ptr" in annotation:
                chosen = shown.pointer
            elif "flags" in parameter.name:
                chosen = shown.hexadecimal
            else:
                chosen = {"s32": shown.decimal, "long": shown.long}.get(kind, shown.unsigned)
        renderers.append(chosen)
    return _Shape(tuple(renderers), not shown.LATE.isdisjoint(renderers))


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
        result = shown.signed(raw, t.arch.bits)
        if text is None or shape.late:
            text = self._arguments(t, shape, result)
        self._line(t, f"{name}({text})", self._result(t, name, result))

    def launched(self, t: Task, path: bytes, argv: Sequence[bytes], environment: int) -> None:
        """The execve(2) that nobody in the machine made."""
        words = ", ".join(shown.quoted(word) for word in argv)
        text = f"execve({shown.quoted(path, len(path))}, [{words}], {t.space.env_start:#x} /* {environment} vars */)"
        self._line(t, text, "0")

    def finished(self, status: int) -> None:
        """The last process is gone, with the first one's wait status."""
        what = f"killed by {signal_name(status & 0x7F)}" if status & 0x7F else f"exited with {status >> 8 & 0xFF}"
        self._sink((f"{self._clock()} " if self._clock is not None else "") + f"+++ {what} +++")

    def _shape_of(self, name: str) -> _Shape:
        shape = self._shapes.get(name)
        if shape is None:
            shape = self._shapes[name] = _shape(name)
        return shape

    @staticmethod
    def _arguments(t: Task, shape: _Shape, result: int | None) -> str:
        args = tuple(t.call.args)
        texts = (render(t, value, args, result) for render, value in zip(shape.renderers, args, strict=False))
        return ", ".join(text for text in texts if text is not None)

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
