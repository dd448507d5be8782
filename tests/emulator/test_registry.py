"""Annotations become conversions, compiled once."""

from __future__ import annotations

from typing import Any, cast

import pytest

from emulator.arch import AARCH64, X86_64
from emulator.kernel.tasks import Task
from emulator.syscalls.registry import FrozenError, Int, Long, Ptr, UInt, compile_entry, registered, syscall, table_for


def handler(t: Task, a: Int, b: UInt, c: Long, d: Ptr) -> int:
    return cast(int, (a, b, c, d))


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        ((1, 2, 3, 4, 9, 9), (1, 2, 3, 4)),
        ((0xFFFFFFFF, 0xFFFFFFFF, (1 << 64) - 1, (1 << 64) - 1, 0, 0), (-1, 0xFFFFFFFF, -1, (1 << 64) - 1)),
        ((0xABCD00000005, 0xABCD00000005, 1 << 63, 0, 0, 0), (5, 5, -(1 << 63), 0)),
    ],
)
def test_conversions(raw: tuple[int, ...], seen: tuple[int, ...]) -> None:
    assert cast(Any, compile_entry(handler, 64)(cast(Task, None), raw)) == seen


def test_every_isa_has_the_same_handlers_under_its_own_numbers() -> None:
    x86, arm = table_for(X86_64.syscalls, 64), table_for(AARCH64.syscalls, 64)
    assert x86.name(39) == "getpid" and arm.name(172) == "getpid"
    assert 39 in x86.entries and 172 in arm.entries


def test_a_call_has_one_handler() -> None:
    registered()
    with pytest.raises(FrozenError):
        syscall("read")(handler)
