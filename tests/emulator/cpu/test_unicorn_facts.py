"""What emulator/cpu relies on in Unicorn 2.1.4 beyond its documentation: an upgrade that changes one fails here."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from unicorn import UC_ARCH_X86, UC_HOOK_BLOCK, UC_MODE_64, unicorn_const, x86_const
from unicorn.unicorn_py3 import Uc
from unicorn.unicorn_py3.unicorn import uclib

from emulator.cpu import engine as cpu_engine
from tests.emulator.cpu.machine import X86_64, assemble

CODE, DATA = 0x1000, 0x8000


def new_engine() -> Uc:
    return Uc(UC_ARCH_X86, UC_MODE_64, cpu=x86_const.UC_CPU_X86_BROADWELL)


def test_constants_of_the_c_header() -> None:
    names = {
        "UC_HOOK_INTR": 1, "UC_HOOK_INSN": 2, "UC_HOOK_CODE": 4, "UC_HOOK_BLOCK": 8, "UC_HOOK_MEM_READ": 1 << 10,
        "UC_HOOK_MEM_WRITE": 1 << 11, "UC_HOOK_INSN_INVALID": 1 << 14, "UC_HOOK_EDGE_GENERATED": 1 << 15,
        "UC_HOOK_TLB_FILL": 1 << 17, "UC_MEM_READ": 16, "UC_MEM_WRITE": 17, "UC_MEM_FETCH": 18,
        "UC_CTL_UC_USE_EXITS": 4, "UC_CTL_TB_REMOVE_CACHE": 9, "UC_CTL_TB_FLUSH": 10, "UC_CTL_TLB_FLUSH": 11,
        "UC_CTL_TLB_TYPE": 12, "UC_CTL_IO_WRITE": 1,
    }  # fmt: skip
    assert {name: getattr(unicorn_const, name) for name in names} == names


def test_the_context_is_a_header_of_40_bytes_and_the_registers() -> None:
    engine = new_engine()
    context = ctypes.c_void_p()
    uclib.uc_context_alloc(engine._uch, ctypes.byref(context))
    size = ctypes.c_size_t.from_address(context.value or 0)
    assert size.value + 40 == uclib.uc_context_size(engine._uch)
    engine.reg_write(x86_const.UC_X86_REG_RAX, 0x1122334455667788)
    uclib.uc_context_save(engine._uch, context)
    data = ctypes.string_at((context.value or 0) + 40, size.value)
    assert (0x1122334455667788).to_bytes(8, "little") in data
    uclib.uc_context_free(context)


def test_the_stop_check_after_each_access_can_be_left_out() -> None:
    """Speed of memory-bound code depends on it; not a failure elsewhere, but worth knowing."""
    assert cpu_engine.spare_exit_checks(X86_64, new_engine())


def test_a_block_hook_can_stop_before_its_block(tmp_path: Path) -> None:
    engine = new_engine()
    engine.mem_map(CODE & ~0xFFF, 0x1000)
    code, _ = assemble(tmp_path, "inc eax; jmp 1f; 1: inc eax; jmp 2f; 2: inc eax; hlt")
    engine.mem_write(CODE, code)
    engine.ctl_exits_enabled(True)
    engine.ctl_set_exits([])
    seen: list[tuple[int, int]] = []

    def on_block(uc: Uc, address: int, size: int, _data: object) -> None:
        seen.append((address, size))
        if len(seen) == 2:
            uc.emu_stop()

    engine.hook_add(UC_HOOK_BLOCK, on_block)
    engine.emu_start(CODE, 0)
    assert engine.reg_read(x86_const.UC_X86_REG_RAX) == 1
    assert engine.reg_read(x86_const.UC_X86_REG_RIP) == seen[1][0]


@pytest.mark.parametrize(("text", "wrong"), [("vpxor xmm0, xmm1, xmm2", True), ("pxor xmm0, xmm2", False)])
def test_vex_is_executed_wrongly(tmp_path: Path, text: str, wrong: bool) -> None:
    engine = new_engine()
    engine.mem_map(CODE & ~0xFFF, 0x1000)
    engine.reg_write(x86_const.UC_X86_REG_CR4, 0x50620)
    code, _ = assemble(tmp_path, text)
    engine.mem_write(CODE, code)
    for number, value in enumerate((1, 2, 4)):
        engine.reg_write(x86_const.UC_X86_REG_XMM0 + number, value)
    engine.emu_start(CODE, CODE + len(code))
    right = 2 ^ 4 if "v" in text else 1 ^ 4
    assert (engine.reg_read(x86_const.UC_X86_REG_XMM0) != right) is wrong
