"""Numbers that differ by ISA, read from abi/tables/*.tbl (lines `number name`, written by scripts/make-tables)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from emulator.abi.errno import E

TABLES = Path(__file__).parent / "tables"

# include/linux/errno.h: between a handler and the dispatcher only; no guest ever sees one.
KERNEL_INTERNAL = {
    E.ERESTARTSYS: 512,
    E.ERESTARTNOINTR: 513,
    E.ERESTARTNOHAND: 514,
    E.ERESTART_RESTARTBLOCK: 516,
}


def _rows(table: str) -> list[tuple[int, str]]:
    lines = (TABLES / f"{table}.tbl").read_text(encoding="ascii").splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return [(int(number), name) for number, name in pairs]


def syscall_names(isa: str) -> Mapping[int, str]:
    """Return number -> name of every system call of `isa`."""
    return MappingProxyType(dict(_rows(isa)))


def errno_numbers(flavour: str = "generic") -> Mapping[E, int]:
    """Return the errno numbers of a flavour: "generic" (x86, arm, riscv), "mips", "ppc"."""
    by_name = E.__members__
    known = {by_name[name]: number for number, name in _rows(f"errno-{flavour}") if name in by_name}
    return MappingProxyType(known | KERNEL_INTERNAL)
