"""The table of system calls.

Rule: a handler's annotations say how the raw 64-bit argument registers become Python integers; its return value is
the result, a `LinuxError` its failure.  Numbers are data (`abi/tables`), names are the kernel's.
"""

from __future__ import annotations

from typing import Annotated

# Conversions, applied once at the edge.
Int = Annotated[int, "s32"]  # int
UInt = Annotated[int, "u32"]  # unsigned int, mode_t, uid_t
Fd = Annotated[int, "s32"]  # file descriptor
Long = Annotated[int, "long"]  # long, off_t, ssize_t: signed, the ISA's width
Size = Annotated[int, "ulong"]  # size_t, unsigned long
Ptr = Annotated[int, "ulong"]  # a guest address
