"""The Python twin of the C hooks (`emulator.cpu._hooks`): same interface, same behaviour, much slower."""

from __future__ import annotations

from emulator.cpu.pycore import Core
from emulator.cpu.pyentry import Entry
from emulator.cpu.pymemory import Arena, Frames, PageTable
from emulator.cpu.pyscan import scan

__all__ = ["Arena", "Core", "Entry", "Frames", "PageTable", "scan"]
