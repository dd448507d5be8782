"""Arch -> target description.

Rule: regnums are positions in `Arch.features`; both the description and the register bytes are made from that one list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from emulator.arch.model import Arch
from gdbstub.tdesc import FeatureDescription, RegisterDescription, TargetDescription


@dataclass(frozen=True)
class Description:
    """A target description and how to fill it."""

    target: TargetDescription
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    order: Literal["little", "big"]
    number: dict[str, int]


def _generic(arch: Arch, name: str) -> str:
    return {arch.pc: "pc", arch.sp: "sp", arch.fp: "fp"}.get(name, "")


def describe(arch: Arch) -> Description:
    """The description of an ISA."""
    features = tuple(
        FeatureDescription(
            feature.name,
            tuple(
                RegisterDescription(r.name, r.bits, r.type, r.group, generic=_generic(arch, r.name))
                for r in feature.registers
            ),
            feature.types,
        )
        for feature in arch.features
    )
    names = tuple(register.name for feature in arch.features for register in feature.registers)
    number = {register: i for i, register in enumerate(names)}
    target = TargetDescription(
        arch.gdb_name,
        features,
        big_endian=arch.byteorder == "big",
        expedited=tuple(number[register] for register in arch.expedited),
        pc=number[arch.pc],
    )
    return Description(target, names, target.sizes, "big" if arch.byteorder == "big" else "little", number)
