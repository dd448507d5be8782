"""Which ISA a program needs, and where the libraries of a foreign one are, before there is a machine.

Rule: pure; the caller says how to read a file and whether a directory exists.
"""

from __future__ import annotations

from collections.abc import Callable

from emulator.arch import X86_64, Arch
from emulator.loader import elf, script
from emulator.loader.elf import BINPRM_BUF_SIZE, LoadError

Head = Callable[[bytes], bytes]  # guest path -> the file's first 64 KiB; raises LinuxError


def identify(path: bytes, head_of: Head, default: Arch = X86_64) -> Arch:
    """Return the ISA of the program at `path`, through `#!` lines; `default` if it is no program at all.

    A program of an ISA that is not supported raises LoadError, whose sentence names it.
    """
    for _ in range(script.MAX_REWRITES + 1):
        data = head_of(path)
        head = data[:BINPRM_BUF_SIZE]
        if script.is_script(head):
            path = script.parse(head).interpreter
            continue
        if head[:4] != b"\x7fELF":
            return default
        try:
            return elf.parse(head, _slicer(data)).arch
        except LoadError as error:
            if "not supported" in error.why:
                raise
            return default  # execve will say what is wrong with it
    return default


def _slicer(data: bytes) -> elf.Read:
    return lambda offset, size: data[offset : offset + size]


def sysroot_of(arch: Arch, host_machine: str, requested: str, is_directory: Callable[[str], bool]) -> str:
    """Return the directory tried first for absolute paths ("" for none): -L, else Debian's cross sysroot.

    A cross toolchain keeps its target's libraries in /usr/TRIPLET, which is what `qemu-ARCH -L` is given.
    """
    if requested:
        return requested
    candidate = f"/usr/{arch.triplet}"
    return candidate if arch.name != host_machine and is_directory(candidate) else ""
