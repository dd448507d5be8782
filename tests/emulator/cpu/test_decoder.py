"""No word of code ends the process: the encodings QEMU's aarch64 decoder asserts on are undefined instead."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterable

import pytest

from emulator.abi.memory import PAGE_SIZE
from emulator.cpu.exits import Interrupt, Undefined
from tests.emulator.cpu.machine import AARCH64, CODE, DATA, STACK, Bare

BRANCH_TO_SELF = 0x14000000
UNALLOCATED = (0x0E432C41, 0x0EC31C41, 0x2E430C41, 0x0E780841, 0x2EF87B0F, 0x7E789A29, 0x5E780841)
ALLOCATED = (0x0E431C41, 0x0E798841, 0x5E79D841, 0x1E780841)  # fmulx 4h, frintn 4h, scvtf h, fmul d1, d2, d24


def run(words: Iterable[int]) -> list[object]:
    """Each word on its own, with the exit it ended with."""
    words = list(words)
    m = Bare(b"".join(struct.pack("<II", word, BRANCH_TO_SELF) for word in words), arch=AARCH64)
    if m.cpu.hooks_kind != "c":
        pytest.skip("only the C hooks stand between the engine's decoder and its assertions")
    exits: list[object] = []
    for n in range(len(words)):
        m.cpu.write("pc", CODE + 8 * n)
        m.cpu.write("sp", STACK - PAGE_SIZE)
        for register in range(31):
            m.cpu.write(f"x{register}", DATA + 64 * register)
        exits.append(m.cpu.run(m.cpu.clock + 1))
    return exits


def test_unallocated_half_precision_is_undefined() -> None:
    for found in run(UNALLOCATED):
        assert isinstance(found, Undefined | Interrupt)


def test_their_allocated_neighbours_run() -> None:
    for found in run(ALLOCATED):
        assert not isinstance(found, Undefined | Interrupt)


def test_every_opcode_of_both_groups_comes_back() -> None:
    three_same = (
        0x0E430441 | q << 30 | u << 29 | a << 23 | opcode << 11
        for q, u, a, opcode in itertools.product((0, 1), (0, 1), (0, 1), range(8))
    )
    two_register = (
        0x0E780841 | form | u << 29 | a << 23 | opcode << 12
        for form, u, a, opcode in itertools.product((0, 1 << 30, 5 << 28), (0, 1), (0, 1), range(32))
    )
    assert len(run([*three_same, *two_register])) == 64 + 384


def test_random_words_come_back() -> None:
    rng = random.Random(11)
    assert len(run(rng.getrandbits(32) for _ in range(4000))) == 4000
