"""Random bytes as code: every run comes back, with the clock going forward, and stepping agrees with running."""

from __future__ import annotations

import random

import pytest

from emulator.cpu import mmu
from emulator.cpu.exits import Exit, Interrupt, Simple, Syscall
from tests.emulator.cpu.machine import CODE, DATA, RWX, STACK, X86_64, Bare

LIKELY = bytes.fromhex("0f66f3f24848c7ae018ed9dbdfffcfcbca9c9d0feb7ee8")


def random_code(rng: random.Random) -> bytes:
    return bytes(rng.choice((rng.randrange(256), rng.choice(LIKELY))) for _ in range(64))


def prepare(m: Bare, rng: random.Random) -> None:
    for register in X86_64.registers:
        if register.bits == 64 and register.uc and register.name not in ("rip", "rsp"):
            choice = (0, 1, DATA, DATA + 100, STACK - 64, rng.getrandbits(64), rng.getrandbits(48), CODE + 16)
            m.cpu.write(register.name, rng.choice(choice))
    m.cpu.write("rip", CODE)
    m.cpu.write("rsp", STACK - 640)


def go(m: Bare, step: bool, limit: int) -> Exit:
    got: Exit = Simple.BUDGET
    for _ in range(8):
        got = m.cpu.step(limit - m.cpu.clock) if step else m.cpu.run(limit)
        if m.cpu.clock >= limit or not (isinstance(got, Syscall) or (isinstance(got, Interrupt) and got.number == 3)):
            break
    return got


@pytest.mark.skipif(mmu.HOOKS_KIND != "c", reason="capstone does not know every encoding that the engine executes")
@pytest.mark.parametrize("seed", range(4))
def test_random_bytes(seed: int) -> None:
    rng = random.Random(seed)
    run, step = (Bare(b"\x90" * 4096, code_prot=RWX) for _ in range(2))
    fresh = run.cpu.save()
    for _ in range(150):
        code, state = random_code(rng), rng.getrandbits(32)
        clocks, results = [], []
        for m in (run, step):
            m.cpu.load(fresh)
            m.table.discard(DATA, 4 * 4096)
            m.table.discard(STACK - 16 * 4096, 16 * 4096)
            m.table.write(CODE, code + b"\x90" * (4096 - 64), force=True)
            prepare(m, random.Random(state))
            before = m.cpu.clock
            m.cpu.clock = 0
            results.append(go(m, m is step, 300))
            clocks.append(m.cpu.clock)
            m.cpu.clock = before + 300
        message = f"{code.hex()} {results} {clocks}"
        assert 0 <= clocks[0] <= 300, message
        assert clocks[0] == clocks[1], message
        assert results[0] == results[1], message
        assert run.cpu.read_file() == step.cpu.read_file(), message


@pytest.mark.parametrize("jump", ["ebfe", "7dfe", "0f8dfaffffff", "e9fbffffff", "e2fe"])
@pytest.mark.parametrize("step", [False, True])
def test_a_jump_to_itself_in_a_writable_page_is_counted(jump: str, step: bool) -> None:
    m = Bare(b"\x90" + bytes.fromhex(jump), code_prot=RWX)
    m.cpu.write("rcx", 1 << 40)
    assert (m.cpu.step(1000) if step else m.cpu.run(1000)) is Simple.BUDGET
    assert (m.cpu.clock, m.read("rip")) == (1000, CODE + 1)
