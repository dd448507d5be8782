"""A system-call handler and how the raw argument registers become its integers: the Python twin of hooks/serve.c's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Entry:
    """Called with (task, raw arguments); `kinds` has a byte an argument: i int, u unsigned int, l long, r raw."""

    __slots__ = ("_handler", "_kinds")

    def __init__(self, handler: Callable[..., Any], kinds: bytes, /) -> None:
        if len(kinds) > 6:
            raise ValueError("a system call has at most six arguments")
        self._handler = handler
        self._kinds = kinds.decode()

    def __call__(self, task: Any, args: tuple[int, ...], /) -> Any:
        return self._handler(task, *map(_convert, self._kinds, args))


def _convert(kind: str, raw: int) -> int:
    match kind:
        case "i":
            return (raw & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
        case "u":
            return raw & 0xFFFFFFFF
        case "l":
            return (raw ^ 1 << 63) - (1 << 63)
    return raw
