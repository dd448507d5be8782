"""What an instruction set is to the rest of the emulator.

Rule: everything that differs between ISAs is a field here; nobody outside `arch/` asks which ISA it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from emulator.abi.errno import E


@dataclass(frozen=True, slots=True)
class Register:
    """One register as gdb numbers it.

    `uc` is Unicorn's constant without its prefix ("RAX"); "" means the emulator keeps it (orig_rax, segment shadows).
    `type` and `group` are the target description's words.
    """

    name: str
    bits: int
    type: str = "int"
    group: str = ""
    uc: str = ""


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of the target description: its standard name, its registers in gdb's order, extra <type> XML."""

    name: str
    registers: tuple[Register, ...]
    types: str = ""


class RegisterAccess(Protocol):
    """Registers by gdb's name, whatever holds them: the live CPU or a captured file."""

    def read(self, name: str) -> int: ...
    def write(self, name: str, value: int) -> None: ...


@dataclass(frozen=True, slots=True)
class SyscallConvention:
    """Where number, arguments and result live (man 2 syscall)."""

    number: str
    args: tuple[str, str, str, str, str, str]
    result: str
    insn_length: int


@dataclass(frozen=True, slots=True)
class Arch:
    """An instruction set under Linux."""

    name: str  # Linux' name: x86_64, aarch64 (uname -m)
    gdb_name: str  # i386:x86-64
    elf_machine: int
    bits: int
    byteorder: str  # "little" | "big"
    features: tuple[Feature, ...]
    pc: str
    sp: str
    fp: str
    convention: SyscallConvention
    syscalls: Mapping[int, str]  # number -> name
    errno: Mapping[E, int]
    expedited: tuple[str, ...]
    breakpoint_kinds: frozenset[int]
    watch_reports_before: bool
    # cpu, signal frame, TLS, hwcap ...: the owner of arch/ adds fields here
    extra: Mapping[str, object] = field(default_factory=dict)
