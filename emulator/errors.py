"""The exceptions of the emulator.

Rule: raise where the fault is known, translate once at the edge.  `LinuxError` becomes a negative errno in exactly one
place (the system-call dispatcher); `MemoryFault` becomes EFAULT for a system call, an error reply for the debugger.
"""

from __future__ import annotations

from emulator.abi.errno import E
from emulator.abi.memory import Access


class EmulatorError(Exception):
    """Base of everything this package raises on purpose."""


class LinuxError(EmulatorError):
    """A system call fails with this errno; the number is the ISA's business."""

    __slots__ = ("errno",)

    def __init__(self, errno: E) -> None:
        super().__init__(errno._name_)
        self.errno = errno


class MemoryFault(EmulatorError):  # noqa: N818 - the architecture's word
    """An access to guest memory is not allowed: `mapped` tells SEGV_ACCERR from SEGV_MAPERR."""

    __slots__ = ("access", "address", "mapped")

    def __init__(self, address: int, access: Access, mapped: bool) -> None:
        super().__init__(f"{access.name} at {address:#x}: {'no permission' if mapped else 'not mapped'}")
        self.address = address
        self.access = access
        self.mapped = mapped


class UsageError(EmulatorError):
    """What the user asked for cannot be done; the text says what to do instead."""
