"""Target descriptions: features and registers -> target.xml (manual: "Target Descriptions").

Rule: regnums are positions: the registers of the features in order, numbered from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from xml.sax.saxutils import quoteattr


@dataclass(frozen=True, slots=True)
class RegisterDescription:
    """One <reg>.  `type` is a predefined type or one of the feature's own."""

    name: str
    bits: int
    type: str = "int"
    group: str = ""
    # for clients that take registers one by one (LLDB's qRegisterInfo)
    generic: str = ""  # "pc" "sp" "fp" "flags" "ra" "arg1"
    dwarf: int | None = None
    alternative_name: str = ""


@dataclass(frozen=True, slots=True)
class FeatureDescription:
    """One <feature>; `types` is the XML of its own types."""

    name: str
    registers: tuple[RegisterDescription, ...]
    types: str = ""


@dataclass(frozen=True)
class TargetDescription:
    """A whole description; `expedited` are regnums that go with every stop reply (pc, sp, fp)."""

    architecture: str
    features: tuple[FeatureDescription, ...]
    osabi: str = "GNU/Linux"
    big_endian: bool = False
    expedited: tuple[int, ...] = ()
    pc: int = 0

    @cached_property
    def registers(self) -> tuple[RegisterDescription, ...]:
        """Every register, by regnum."""
        return tuple(register for feature in self.features for register in feature.registers)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Size in bytes, by regnum."""
        return tuple((register.bits + 7) // 8 for register in self.registers)

    @cached_property
    def xml(self) -> bytes:
        """target.xml."""
        lines = [
            '<?xml version="1.0"?>',
            '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
            '<target version="1.0">',
            f"<architecture>{self.architecture}</architecture>",
        ]
        if self.osabi:
            lines.append(f"<osabi>{self.osabi}</osabi>")
        regnum = 0
        for feature in self.features:
            lines.append(f"<feature name={quoteattr(feature.name)}>")
            if feature.types:
                lines.append(feature.types.strip())
            for register in feature.registers:
                group = f" group={quoteattr(register.group)}" if register.group else ""
                lines.append(
                    f"<reg name={quoteattr(register.name)} bitsize={quoteattr(str(register.bits))}"
                    f' type={quoteattr(register.type)} regnum="{regnum}"{group}/>'
                )
                regnum += 1
            lines.append("</feature>")
        lines.append("</target>")
        return "\n".join(lines).encode()
