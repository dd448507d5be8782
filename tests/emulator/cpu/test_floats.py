"""Floating point: the host's own results, bit for bit, from plain numbers to the edges of the format."""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path

import pytest

from emulator.cpu.exits import Syscall
from tests.emulator.cpu.machine import DATA, FOREVER, Bare, assemble

COUNT = 400
EDGES = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    5e-324,
    2.2250738585072014e-308,
    4.450147717014403e-308,
    1.7976931348623157e308,
    math.inf,
)


def numbers(rng: random.Random) -> list[float]:
    out = []
    for _ in range(2 * COUNT):
        kind = rng.randrange(5)
        if kind == 0:
            out.append(rng.choice(EDGES) * rng.choice((1, -1)))
        elif kind == 1:
            (value,) = struct.unpack("<d", struct.pack("<Q", rng.getrandbits(64)))
            out.append(0.5 if math.isnan(value) else value)
        else:
            out.append(rng.uniform(-10, 10) * 10.0 ** rng.randrange(-3, 4))
    return out


def host(op: str, a: float, b: float) -> float:
    match op:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "sqrt":
            return math.sqrt(b) if b >= 0 else math.nan
        case _ if b == 0:
            return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
        case _:
            return a / b


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "sqrt"])
def test_doubles(tmp_path: Path, op: str) -> None:
    work = "sqrtsd xmm0, xmm1" if op == "sqrt" else f"{op}sd xmm0, xmm1"
    text = f"""
        mov ecx, {COUNT}; mov rbx, {DATA}; mov eax, 0x3ff; cvtsi2sd xmm2, eax; mov eax, 3; cvtsi2sd xmm3, eax
        divsd xmm2, xmm3        # raises the inexact flag
     1: movsd xmm0, [rbx]; movsd xmm1, [rbx + 8]; {work}; movsd [rbx], xmm0; add rbx, 16; dec ecx; jnz 1b; syscall
    """
    code, _ = assemble(tmp_path, text)
    m = Bare(code)
    values = numbers(random.Random(op))
    m.table.write(DATA, struct.pack(f"<{2 * COUNT}d", *values))
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    got = struct.unpack(f"<{2 * COUNT}d", m.table.read(DATA, 16 * COUNT))[::2]
    for n, result in enumerate(got):
        a, b = values[2 * n], values[2 * n + 1]
        want = host(op, a, b)
        same = struct.pack("<d", result) == struct.pack("<d", want) or (math.isnan(result) and math.isnan(want))
        assert same, f"{a!r} {op} {b!r}: {result!r}, not {want!r}"


def test_exceptions_are_still_raised(tmp_path: Path) -> None:
    text = "divsd xmm2, xmm3; mulsd xmm0, xmm0; divsd xmm1, xmm4; syscall"
    code, _ = assemble(tmp_path, text)
    m = Bare(code)
    bits = {name: int.from_bytes(struct.pack("<d", value), "little") for name, value in
            (("xmm0", 1e200), ("xmm1", 1.0), ("xmm2", 1.0), ("xmm3", 3.0), ("xmm4", 0.0))}  # fmt: skip
    for name, value in bits.items():
        m.cpu.write(name, value)
    assert isinstance(m.cpu.run(FOREVER), Syscall)
    assert m.read("mxcsr") & 0x3F == 0x20 | 0x08 | 0x04  # inexact, overflow, division by zero
    assert m.read("xmm0") == 0x7FF << 52
