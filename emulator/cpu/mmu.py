"""The MMU: guest-physical frames in one arena, a page table per address space.

Rule: an address space is a `PageTable`; everything that changes one goes through its methods, which keep the engines'
TLBs and translated code honest.  The C module and its Python twin offer the same three classes; EMUGDB_HOOKS=c|python
chooses, otherwise C where it was built.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emulator.abi.memory import PAGE_SIZE, Access, Prot
from emulator.errors import MemoryFault

if TYPE_CHECKING:
    from emulator.cpu import _hooks as backend
    from emulator.cpu._hooks import Arena, Frames, PageTable
else:
    _choice = os.environ.get("EMUGDB_HOOKS", "auto")
    backend = None
    if _choice != "python":
        try:
            from emulator.cpu import _hooks as backend
        except ImportError:
            if _choice == "c":
                raise
    if backend is None:
        from emulator.cpu import pyhooks as backend
    Arena, Frames, PageTable = backend.Arena, backend.Frames, backend.PageTable

PAGE = PAGE_SIZE
HOOKS_KIND = "c" if backend.__name__.endswith("_hooks") else "python"

__all__ = ["HOOKS_KIND", "PAGE", "Access", "Arena", "Frames", "MemoryFault", "PageTable", "Prot", "backend"]
