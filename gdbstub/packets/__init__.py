"""One file per family of the manual.  Importing this package registers every packet."""

from gdbstub.packets import (
    breakpoints,
    catch,
    host_io,
    launch,
    lldb,
    memory,
    monitor,
    nonstop,
    query,
    registers,
    resume,
    reverse,
    threads,
    xfer,
)

__all__ = [
    "breakpoints",
    "catch",
    "host_io",
    "launch",
    "lldb",
    "memory",
    "monitor",
    "nonstop",
    "query",
    "registers",
    "resume",
    "reverse",
    "threads",
    "xfer",
]
