"""The Python twin of the C hooks (`emulator.cpu._hooks`): same interface, same behaviour, much slower.

Its files are those of hooks/, with these exceptions: `table` and `access` hold C's ranges.c and points.c too, engine.c
is `blocks` (the clock's knowledge of code) and `callbacks`, serve.c is `entry` and a method of `core`.
"""

from __future__ import annotations

from emulator.cpu.pyhooks.access import PageTable
from emulator.cpu.pyhooks.arena import Arena, Frames
from emulator.cpu.pyhooks.core import Core
from emulator.cpu.pyhooks.entry import Entry
from emulator.cpu.pyhooks.scan import scan

__all__ = ["Arena", "Core", "Entry", "Frames", "PageTable", "scan"]
