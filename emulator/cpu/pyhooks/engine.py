"""One Unicorn instance, called through ctypes: the numbers and prototypes of engine.h."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import wraps
from typing import Any

from unicorn.unicorn_py3.unicorn import uclib

from emulator.abi.memory import PAGE_SIZE
from emulator.cpu.pyhooks.arena import SHIFT, Arena
from emulator.cpu.pyhooks.table import Table

HOOK_INTR, HOOK_INSN, HOOK_CODE, HOOK_BLOCK, HOOK_READ, HOOK_WRITE = 1, 2, 4, 8, 1 << 10, 1 << 11
HOOK_INVALID, HOOK_EDGE, HOOK_FILL = 1 << 14, 1 << 15, 1 << 17
MEM_WRITE, MEM_FETCH = 17, 18
ALIAS = 0xFFF << 52  # frames show up here while translations of them are thrown away
CONTEXT_HEADER = 40
WORD = (1 << 64) - 1


def _ctl_write(what: int, arguments: int) -> int:
    return what | arguments << 26 | 1 << 30


_FLUSH_TLB, _REMOVE_CACHE = _ctl_write(11, 0), _ctl_write(9, 2)
_USE_EXITS, _EXITS, _TLB_MODE = _ctl_write(4, 1), _ctl_write(6, 2), _ctl_write(12, 1)


class TlbEntry(ctypes.Structure):
    """uc_tlb_entry."""

    _fields_ = (("paddr", ctypes.c_uint64), ("perms", ctypes.c_uint32))


_U64, _U32, _INT, _PTR = ctypes.c_uint64, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p
FILL = ctypes.CFUNCTYPE(ctypes.c_bool, _PTR, _U64, _INT, ctypes.POINTER(TlbEntry), _PTR)
CODE = ctypes.CFUNCTYPE(None, _PTR, _U64, _U32, _PTR)
EDGE = ctypes.CFUNCTYPE(None, _PTR, ctypes.POINTER(_U64), ctypes.POINTER(_U64), _PTR)
INTR = ctypes.CFUNCTYPE(None, _PTR, _U32, _PTR)
PLAIN = ctypes.CFUNCTYPE(None, _PTR, _PTR)
INVALID = ctypes.CFUNCTYPE(ctypes.c_bool, _PTR, _PTR)
ACCESS = ctypes.CFUNCTYPE(None, _PTR, _INT, _U64, _INT, ctypes.c_int64, _PTR)


class Engine:
    """One Unicorn instance over the arena; its TLB and translations are the run loop's to keep up to date."""

    def __init__(self, uc: int, ran: int, arena: Arena) -> None:
        self.uc = uc
        self.ran = ran  # RAN_RUNNER, RAN_STEPPER
        self.table: Table | None = None  # of the last flush,
        self.epoch = 0  # ... and its epoch
        self.fills = 0  # of the TLB since then
        self.crowd = 512  # so many mean that the TLB is too small
        self.aliasing = False
        self.writable_code: set[int] = set()  # frames given W while they hold code
        self.error: BaseException | None = None  # of a callback
        self._callbacks: list[Any] = []
        self._value = ctypes.create_string_buffer(64)
        self._context = ctypes.c_void_p()
        uclib.uc_context_alloc(uc, ctypes.byref(self._context))
        self.ctl(_USE_EXITS, ctypes.c_int(1))
        self.ctl(_TLB_MODE, ctypes.c_int(1))
        size = ctypes.c_uint64(arena.capacity << SHIFT)
        if uclib.uc_mem_map_ptr(uc, _U64(0), size, _U32(7), ctypes.c_void_p(arena.base)):
            raise RuntimeError("the engine refuses the arena")

    def __del__(self) -> None:
        uclib.uc_context_free(self._context)

    def ctl(self, what: int, *arguments: Any) -> None:
        """uc_ctl."""
        uclib.uc_ctl(ctypes.c_void_p(self.uc), ctypes.c_int(what), *arguments)

    def flush_tlb(self) -> None:
        """Forget every page."""
        self.ctl(_FLUSH_TLB)

    def forget_frame(self, frame: int) -> None:
        """Forget what was translated from a frame."""
        self.aliasing = True
        start = ALIAS + (frame << SHIFT)
        self.ctl(_REMOVE_CACHE, _U64(start), _U64(start + PAGE_SIZE))
        self.aliasing = False

    def set_exit(self, address: int | None) -> None:
        """Let translation, and so the next run, end at `address`; None: nowhere."""
        exits = (_U64 * 1)(address or 0)
        self.ctl(_EXITS, exits, ctypes.c_size_t(address is not None))

    def get(self, register: int, size: int = 8) -> int:
        """Return a register by Unicorn's number."""
        ctypes.memset(self._value, 0, 64)
        uclib.uc_reg_read(self.uc, register, self._value)
        return int.from_bytes(self._value.raw[:size], "little")

    def set(self, register: int, value: int, size: int = 8) -> None:
        """Write a register by Unicorn's number."""
        self._value.raw = (value & (1 << 8 * size) - 1).to_bytes(64, "little")
        uclib.uc_reg_write(self.uc, register, self._value)

    def save(self) -> bytes:
        """Return all registers, as the engine lays them out."""
        uclib.uc_context_save(self.uc, self._context)
        size = uclib.uc_context_size(self.uc)
        return ctypes.string_at((self._context.value or 0) + CONTEXT_HEADER, size - CONTEXT_HEADER)

    def load(self, registers: bytes) -> None:
        """Put all registers back."""
        ctypes.memmove((self._context.value or 0) + CONTEXT_HEADER, registers, len(registers))
        uclib.uc_context_restore(self.uc, self._context)

    def start(self, pc: int) -> None:
        """Run until somebody stops it.  Raises what a callback raised."""
        uclib.uc_emu_start(self.uc, _U64(pc), _U64(0), _U64(0), ctypes.c_size_t(0))
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def stop(self) -> None:
        """End the run: for callbacks."""
        uclib.uc_emu_stop(self.uc)

    def hook(self, kind: int, prototype: Any, function: Callable[..., Any], instruction: int = 0) -> None:
        """Have `function` called; an exception in it ends the run."""

        @wraps(function)
        def guarded(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except BaseException as error:
                self.error = self.error or error
                self.stop()
                return False

        callback = prototype(guarded)
        self._callbacks.append(callback)
        handle = ctypes.c_size_t()
        pointer = ctypes.cast(callback, ctypes.c_void_p)
        extra = (ctypes.c_int(instruction),) if instruction else ()
        uclib.uc_hook_add(self.uc, ctypes.byref(handle), kind, pointer, ctypes.c_void_p(0), _U64(1), _U64(0), *extra)
