"""Agent expressions: the manual's bytecodes, and whatever else a client may send."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdbstub.agent import AgentError, compile_expression
from gdbstub.errors import Malformed


class Machine:
    """Registers hold their number times 10; memory holds its address' low bytes."""

    def __init__(self) -> None:
        self.printed = b""

    def register(self, regnum: int) -> int:
        if regnum > 100:
            raise AgentError("no such register")
        return regnum * 10

    def memory(self, address: int, size: int) -> int:
        if address == 0:
            raise AgentError("cannot read 0")
        if 0x5000 <= address < 0x5006:
            return b"hello\0"[address - 0x5000]
        return address & ((1 << 8 * size) - 1)

    def print(self, text: bytes) -> None:
        self.printed += text


def value(bytecode: str) -> int:
    return compile_expression(bytes.fromhex(bytecode))(Machine())


M1 = (1 << 64) - 1


@pytest.mark.parametrize(
    ("bytecode", "expected"),
    [
        ("2205 27", 5),
        ("22ff 16 08 27", M1),  # ext 8
        ("22ff 2a 04 27", 15),  # zero_ext 4
        ("2205 2203 02 27", 8),
        ("2203 2205 03 27", M1 - 1),
        ("2207 2206 04 27", 42),
        ("22f9 16 08 2202 05 27", M1 - 2),  # -7 / 2 == -3
        ("22f9 16 08 2202 07 27", M1),  # -7 % 2 == -1
        ("2207 2202 06 27", 3),
        ("2207 2202 08 27", 1),
        ("2201 2241 09 27", 0),  # << 65
        ("2201 223f 09 27", 1 << 63),
        ("22ff 16 08 2204 0a 27", M1),
        ("22ff 16 08 223f 0b 27", 1),
        ("2200 0e 27", 1),
        ("220c 220a 0f 27", 8),
        ("220c 220a 10 27", 14),
        ("220c 220a 11 27", 6),
        ("2200 12 27", M1),
        ("2205 2205 13 27", 1),
        ("22ff 16 08 2201 14 27", 1),  # -1 < 1
        ("22ff 16 08 2201 15 27", 0),
        ("230102 27", 0x102),
        ("2401020304 27", 0x1020304),
        ("25 0102030405060708 27", 0x102030405060708),
        ("26 0003 27", 30),
        ("23 4321 17 27", 0x21),
        ("24 87654321 18 27", 0x4321),
        ("24 87654321 19 27", 0x87654321),
        ("2205 28 02 27", 10),  # dup
        ("2205 2206 29 27", 5),  # pop
        ("2203 2205 2b 03 27", 2),  # swap
        ("2201 2202 2203 32 02 27", 1),  # pick
        ("2201 2202 2203 33 29 29 27", 3),  # rot: 3 1 2
        ("2200 20 0008 2207 27 2209 27", 7),  # if_goto not taken
        ("2201 20 0008 2207 27 2209 27", 9),
        ("21 0005 2207 2209 27", 9),  # goto
        # i = 3; do i = i - 1 while (i); return i
        ("2203 2201 03 28 20 0002 27", 0),
    ],
)
def test_bytecodes(bytecode: str, expected: int) -> None:
    assert value(bytecode) == expected


@pytest.mark.parametrize(
    "bytecode",
    ["", "ff", "22", "2205", "02 27", "2205 02 27", "20 0000", "2205 20 0001 27", "21 ffff", "2205 16 00 27", "34 01",
     "32 05 27", "33 27", "2205 2b 27", "34 00 0009 61 27", "0c 27"],
)  # fmt: skip
def test_malformed(bytecode: str) -> None:
    with pytest.raises(Malformed):
        value(bytecode)


@pytest.mark.parametrize(
    "bytecode",
    [
        "21 0000",
        "2205 2205 20 0002 27",
        "2201 20 0000 27",
        "2201 2200 05 27",
        "2201 2200 08 27",
        "2200 17 27",
        "26 1000 27",
    ],
)
def test_errors_and_endless_loops(bytecode: str) -> None:
    with pytest.raises(AgentError):
        value(bytecode)


def test_printf() -> None:
    machine = Machine()
    text = rb"%d\t%s \"%#lx%%\" %c\102\8\n" + b"\0"
    push = bytes.fromhex("2261 22ff 16 08 23 5000 22fe 16 08".replace(" ", ""))  # 'a', -1, string, -2
    code = push + b"\x22\0\x22\0\x34\x04" + len(text).to_bytes(2, "big") + text + b"\x27"
    assert compile_expression(code)(machine) == 0
    assert machine.printed == b'-2\thello "0xffffffffffffffff%" aB8\n'


def test_a_long_expression() -> None:
    code = b"\x26\0\1" + b"\x22\x01\x02" * 1000 + b"\x27"
    assert compile_expression(code)(Machine()) == 1010


@given(st.binary(max_size=60))
def test_anything(code: bytes) -> None:
    try:
        result = compile_expression(code)(Machine())
    except (Malformed, AgentError):
        return
    assert 0 <= result <= M1


_OPS = [0x02, 0x03, 0x04, 0x05, 0x09, 0x0A, 0x0B, 0x0E, 0x12, 0x13, 0x14, 0x17, 0x28, 0x29, 0x2B, 0x33, 0x27]


@given(st.lists(st.one_of(st.sampled_from(_OPS).map(lambda op: bytes((op,))), st.integers(0, 255).map(
    lambda n: bytes((0x22, n))), st.integers(0, 40).map(lambda n: bytes((0x20, 0, n))), st.integers(0, 3).map(
    lambda n: bytes((0x32, n)))), max_size=30))  # fmt: skip
def test_well_formed_operands(ops: list[bytes]) -> None:
    try:
        result = compile_expression(b"".join(ops) + b"\x27")(Machine())
    except (Malformed, AgentError):
        return
    assert 0 <= result <= M1


def test_speed() -> None:
    """A condition like `reg == const`: the aim is 200,000 evaluations/s, the machine may be busy."""
    condition = compile_expression(bytes.fromhex("260001 23 1000 13 27".replace(" ", "")))
    machine = Machine()
    best = 0.0
    for _ in range(5):
        start = perf_counter()
        for _ in range(10_000):
            condition(machine)
        best = max(best, 10_000 / (perf_counter() - start))
    assert best > 100_000
