"""Prints README's support tables from the registries, or rewrites README.md with them.

    python scripts/support_tables.py            print
    python scripts/support_tables.py --write    put them between README's marks

Rule: nothing is listed by hand; `tests/contracts/test_readme.py` compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

README = Path(__file__).resolve().parents[1] / "README.md"
MARK = "<!-- {} {} (scripts/support_tables.py) -->"


def isas() -> list[str]:
    """One line an ISA."""
    from emulator.arch import ARCHES
    from emulator.syscalls.registry import table_for

    lines = ["| ISA | gdb's name | registers gdb sees | system calls |", "|---|---|---|---|"]
    for arch in ARCHES:
        registers = sum(len(feature.registers) for feature in arch.features)
        calls = len(table_for(arch.syscalls, arch.bits).entries)
        lines.append(f"| {arch.name} | {arch.gdb_name} | {registers} | {calls} |")
    return lines


def packets() -> list[str]:
    """The packets of the protocol that emugdb's target answers, by family."""
    import gdbstub.packets as _registers_them  # noqa: F401
    from emulator.debug.target import LaunchingTarget
    from gdbstub.registry import REGISTRY

    rows = REGISTRY.dispatch(object.__new__(LaunchingTarget)).rows
    families: dict[str, list[str]] = {}
    for row in rows:
        family = "Xfer objects" if row.word.startswith("qXfer:") else row.word[0] if len(row.word) == 1 else ""
        word = row.word.split(":")[1] if row.word.startswith("qXfer:") else row.word
        if row.word.startswith("vFile"):
            family, word = "Host I/O", row.word.partition(":")[2]
        elif row.word.startswith("v"):
            family = "v…"
        elif row.word.startswith("j"):
            family = "LLDB j…"
        elif row.word.startswith("Q"):
            family = "Q…"
        elif row.word.startswith("q") and family != "Xfer objects":
            family = "q…"
        elif len(row.word) == 1 or not family:
            family = "one letter and others"
        families.setdefault(family, []).append(word)
    features = sorted({feature for row in rows for feature in row.advertises.split(";") if feature})
    lines = ["| packets | |", "|---|---|"]
    lines += [f"| {family} | {words(sorted(set(found)))} |" for family, found in sorted(families.items())]
    lines.append(f"| qSupported, besides | {words(features)} |")
    return lines


def system_calls() -> list[str]:
    """Every registered system call."""
    from emulator.syscalls.registry import registered

    names = sorted(registered())
    return [f"{len(names)} names: {words(names)}."]


def words(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


SECTIONS = {"isas": isas, "packets": packets, "system calls": system_calls}


def rendered(text: str) -> str:
    """README's text with the tables of now."""
    for name, lines in SECTIONS.items():
        begin, end = MARK.format("begin", name), MARK.format("end", name)
        if begin not in text or end not in text:
            raise SystemExit(f"README.md has no marks for {name}")
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = f"{head}{begin}\n" + "\n".join(lines()) + f"\n{end}{tail}"
    return text


def main() -> None:
    if "--write" in sys.argv:
        README.write_text(rendered(README.read_text()))
        return
    for name, lines in SECTIONS.items():
        print(f"## {name}\n")
        print("\n".join(lines()), "\n")


if __name__ == "__main__":
    main()
