"""Agent expressions (manual: "The GDB Agent Expression Mechanism").

Rule: bytecode comes from outside and may be anything; compiling it raises Malformed, running it raises AgentError, and
it always ends.

An expression is compiled to one Python function: its basic blocks become branches, its stack slots local variables, so
that evaluating `reg == const` costs two calls.  Only operators and integers of our own making get into the source text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gdbstub.errors import Malformed

_MASK = (1 << 64) - 1
_SIGN = 1 << 63
_MAX_LENGTH = 1 << 12
_MAX_BLOCKS = 128
_MAX_DEPTH = 100
_MAX_TEXT = 160  # longest Python expression kept unevaluated
_FUEL = 10_000  # backward jumps one evaluation may take
_MAX_STRING = 1 << 12


class AgentError(Exception):
    """The expression could not be evaluated (memory, division by zero, too long); a condition then counts as true."""


class AgentContext(Protocol):
    """What an expression sees of the stopped thread."""

    def register(self, regnum: int) -> int:
        """A register as an unsigned number; raises AgentError."""

    def memory(self, address: int, size: int) -> int:
        """An unsigned number of 1, 2, 4 or 8 bytes, target byte order; raises AgentError."""

    def print(self, text: bytes) -> None:
        """Output of the printf bytecode."""


class Expression:
    """A compiled expression: call it with a context; the value is 64 bits, unsigned."""

    __slots__ = ("_run", "bytecode")

    def __init__(self, bytecode: bytes, run: Callable[[AgentContext], int]) -> None:
        self.bytecode = bytecode
        self._run = run

    def __call__(self, context: AgentContext) -> int:
        return self._run(context)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.bytecode == self.bytecode

    def __hash__(self) -> int:
        return hash(self.bytecode)


# -------------------------------------------------------------------------------------------------- helpers at run time


def _signed(value: int) -> int:
    return (value ^ _SIGN) - _SIGN


def _divide_signed(a: int, b: int) -> int:
    if not b:
        raise AgentError("division by zero")
    left, right = _signed(a), _signed(b)
    quotient = abs(left) // abs(right)
    return (quotient if (left < 0) == (right < 0) else -quotient) & _MASK


def _remainder_signed(a: int, b: int) -> int:
    if not b:
        raise AgentError("division by zero")
    left, right = _signed(a), _signed(b)
    rest = abs(left) % abs(right)
    return (-rest if left < 0 else rest) & _MASK


def _divide_unsigned(a: int, b: int) -> int:
    if not b:
        raise AgentError("division by zero")
    return a // b


def _remainder_unsigned(a: int, b: int) -> int:
    if not b:
        raise AgentError("division by zero")
    return a % b


def _shift_left(a: int, b: int) -> int:
    return (a << b) & _MASK if b < 64 else 0


def _shift_right_signed(a: int, b: int) -> int:
    return (_signed(a) >> min(b, 63)) & _MASK


def _shift_right_unsigned(a: int, b: int) -> int:
    return a >> b if b < 64 else 0


def _string(context: AgentContext, address: int) -> bytes:
    out = bytearray()
    while len(out) < _MAX_STRING and (byte := context.memory((address + len(out)) & _MASK, 1)):
        out.append(byte)
    return bytes(out)


_CONVERSION = re.compile(rb"%(?:%|([-+ #0]*)([0-9]{0,3})(\.[0-9]{0,3})?(?:hh|h|ll|l|j|z|t)?([diouxXcsp]))")


# gdb sends a format as its user typed it, with C's escapes in it.
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|(.))", re.DOTALL)
_ESCAPED = dict(zip(b"abefnrtv", b"\a\b\x1b\f\n\r\t\v", strict=True))


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[1]:
        return bytes((int(match[1], 8) & 0xFF,))
    return bytes((_ESCAPED.get(match[2][0], match[2][0]),))


def _print(context: AgentContext, format_: bytes, arguments: tuple[int, ...]) -> None:
    values = iter(arguments)

    def convert(match: re.Match[bytes]) -> bytes:
        if match[0] == b"%%":
            return b"%"
        flags, width, precision, letter = match[1], match[2], match[3] or b"", match[4]
        value = next(values, 0)
        size = 8 if b"l" in match[0] or b"j" in match[0] or b"z" in match[0] or b"t" in match[0] else 4
        low = value & ((1 << 8 * size) - 1)
        shape = b"%" + flags + width + precision
        if letter in b"di":
            half = 1 << (8 * size - 1)
            return (shape + b"d") % ((low ^ half) - half)
        if letter == b"s":
            return (shape + b"s") % _string(context, value)
        if letter == b"c":
            return bytes((value & 0xFF,))
        if letter == b"p":
            return b"%#x" % value
        return (shape + (b"d" if letter == b"u" else letter)) % low

    context.print(_CONVERSION.sub(convert, format_))


_HELPERS: dict[str, object] = {
    "AgentError": AgentError,
    "div_s": _divide_signed,
    "rem_s": _remainder_signed,
    "div_u": _divide_unsigned,
    "rem_u": _remainder_unsigned,
    "shl": _shift_left,
    "sar": _shift_right_signed,
    "shr": _shift_right_unsigned,
    "print_": _print,
}

# ----------------------------------------------------------------------------------------------------------- compiling

# opcode -> Python text of (second from top, top); gdb/common/ax.def
_BINARY = {
    0x02: f"(({{a}} + {{b}}) & {_MASK})",
    0x03: f"(({{a}} - {{b}}) & {_MASK})",
    0x04: f"(({{a}} * {{b}}) & {_MASK})",
    0x05: "div_s({a}, {b})",
    0x06: "div_u({a}, {b})",
    0x07: "rem_s({a}, {b})",
    0x08: "rem_u({a}, {b})",
    0x09: "shl({a}, {b})",
    0x0A: "sar({a}, {b})",
    0x0B: "shr({a}, {b})",
    0x0F: "({a} & {b})",
    0x10: "({a} | {b})",
    0x11: "({a} ^ {b})",
    0x13: "(1 if {a} == {b} else 0)",
    0x14: f"(1 if ({{a}} ^ {_SIGN}) < ({{b}} ^ {_SIGN}) else 0)",
    0x15: "(1 if {a} < {b} else 0)",
}
_UNARY = {
    0x0E: "(0 if {a} else 1)",
    0x12: f"({{a}} ^ {_MASK})",
    0x17: "memory({a}, 1)",
    0x18: "memory({a}, 2)",
    0x19: "memory({a}, 4)",
    0x1A: "memory({a}, 8)",
}
_EXT, _IF_GOTO, _GOTO, _REG, _END, _DUP, _POP, _ZERO_EXT = 0x16, 0x20, 0x21, 0x26, 0x27, 0x28, 0x29, 0x2A
_CONST = {0x22: 1, 0x23: 2, 0x24: 4, 0x25: 8}
_SWAP, _PICK, _ROT, _PRINTF = 0x2B, 0x32, 0x33, 0x34
_OPERAND_SIZE = {_EXT: 1, _ZERO_EXT: 1, _IF_GOTO: 2, _GOTO: 2, _REG: 2, _PICK: 1} | _CONST
_KNOWN = {*_BINARY, *_UNARY, *_OPERAND_SIZE, _END, _DUP, _POP, _SWAP, _ROT, _PRINTF}


@dataclass(frozen=True, slots=True)
class _Op:
    at: int
    code: int
    operand: int
    next: int
    text: bytes = b""


def _decode(bytecode: bytes) -> dict[int, _Op]:
    ops = {}
    at = 0
    while at < len(bytecode):
        code = bytecode[at]
        if code not in _KNOWN:
            raise Malformed(f"agent bytecode {code:#x} at {at} is unknown or unsupported")
        text = b""
        if code == _PRINTF:  # number of arguments (1), length of the format (2), the format with its NUL
            length = int.from_bytes(bytecode[at + 2 : at + 4], "big")
            end = at + 4 + length
            if end > len(bytecode):
                raise Malformed("a format goes beyond the agent expression")
            operand, text = bytecode[at + 1], _ESCAPE.sub(_unescape, bytecode[at + 4 : end].rstrip(b"\0"))
        else:
            end = at + 1 + _OPERAND_SIZE.get(code, 0)
            if end > len(bytecode):
                raise Malformed("an operand goes beyond the agent expression")
            operand = int.from_bytes(bytecode[at + 1 : end], "big")
        ops[at] = _Op(at, code, operand, end, text)
        at = end
    return ops


class _Block:
    """Code from one jump target to the next jump: `lines` of Python; the stack in and out is in s0, s1, ...

    In between an element of the stack is the text of a Python expression that has no side effect.
    """

    def __init__(self, start: int, depth: int) -> None:
        self.depth = depth
        self.lines: list[str] = []
        self.targets: list[int] = []
        self.stack = [f"s{slot}" for slot in range(depth)]
        self._start = start
        self._names = 0

    def name(self, text: str) -> str:
        """Evaluate now; the value's name is its own for ever."""
        self._names += 1
        name = f"t{self._start}_{self._names}"
        self.lines.append(f"{name} = {text}")
        return name

    def pop(self) -> str:
        if not self.stack:
            raise Malformed("an agent expression takes from an empty stack")
        return self.stack.pop()

    def push(self, text: str) -> None:
        if len(self.stack) >= _MAX_DEPTH:
            raise Malformed("an agent expression needs too deep a stack")
        self.stack.append(self.name(text) if len(text) > _MAX_TEXT else text)

    def settle(self, from_top: int) -> str:
        """Give an element a name, so that it may be used twice."""
        if from_top >= len(self.stack):
            raise Malformed("an agent expression picks from below its stack")
        text = self.stack[-1 - from_top]
        if not text.isidentifier() and not text.isdigit():
            text = self.stack[-1 - from_top] = self.name(text)
        return text

    def leave(self, at: str, *targets: int) -> None:
        """Hand the stack over to the next block, which `at` chooses."""
        if self.stack:
            names = ", ".join(f"s{slot}" for slot in range(len(self.stack)))
            self.lines.append(f"{names} = {', '.join(self.stack)}")
        self.lines.append(f"at = {at}")
        self.targets += targets

    def compute(self, op: _Op) -> None:
        """Compile an op that only works on the stack."""
        code, operand = op.code, op.operand
        if (binary := _BINARY.get(code)) is not None:
            b, a = self.pop(), self.pop()
            self.push(binary.format(a=a, b=b))
        elif (unary := _UNARY.get(code)) is not None:
            self.push(unary.format(a=self.pop()))
        elif code in _CONST:
            self.push(str(operand))
        elif code == _REG:
            self.push(f"register({operand})")
        elif code in (_EXT, _ZERO_EXT):
            self._extend(operand, signed=code == _EXT)
        elif code in (_DUP, _PICK):
            self.push(self.settle(operand))
        elif code == _POP:
            self.pop()
        elif code == _SWAP:
            self.settle(0), self.settle(1)
            self.stack[-2:] = self.stack[-1], self.stack[-2]
        elif code == _ROT:  # a b c => c a b
            self.settle(0), self.settle(1), self.settle(2)
            self.stack[-3:] = self.stack[-1], self.stack[-3], self.stack[-2]
        else:  # _PRINTF
            self.pop(), self.pop()  # function and channel: gdb's own business
            arguments = "".join([f"{self.pop()}, " for _ in range(operand)])
            self.lines.append(f"print_(context, {op.text!r}, ({arguments}))")

    def _extend(self, bits: int, signed: bool) -> None:
        if bits == 0:
            raise Malformed("extension from no bits")
        text = self.pop()
        if bits < 64:
            text = f"({text} & {(1 << bits) - 1})"
            if signed:
                half = 1 << (bits - 1)
                text = f"((({text[1:-1]}) ^ {half}) - {half} & {_MASK})"
        self.push(text)


class _Compiler:
    def __init__(self, bytecode: bytes) -> None:
        self._ops = _decode(bytecode)
        jumps = [op for op in self._ops.values() if op.code in (_GOTO, _IF_GOTO)]
        self._leaders = {0, *(op.operand for op in jumps), *(op.next for op in jumps if op.code == _IF_GOTO)}
        if len(self._leaders) > _MAX_BLOCKS:
            raise Malformed("an agent expression jumps too much")
        for leader in self._leaders:
            if leader not in self._ops:
                raise Malformed(f"a jump to {leader}, where no agent bytecode begins")

    def source(self) -> str:
        """Text of the Python function."""
        blocks: dict[int, _Block] = {}
        waiting = [(0, 0)]
        while waiting:
            start, depth = waiting.pop()
            if start not in blocks:
                block = blocks[start] = _Block(start, depth)
                self._compile(block, start)
                waiting += [(target, len(block.stack)) for target in block.targets]
            elif blocks[start].depth != depth:
                raise Malformed("stack heights differ where paths of an agent expression meet")
        head = ["def run(context):", " register = context.register", " memory = context.memory"]
        if not blocks[0].targets:
            return "\n".join(head + [" " + line for line in blocks[0].lines])
        # Blocks stand in ascending order: a jump forward finds its block further down in the same round.
        head += [" at = 0", f" for _ in range({_FUEL}):"]
        for start in sorted(blocks):
            head += [f"  if at == {start}:", *("   " + line for line in blocks[start].lines)]
        return "\n".join([*head, " raise AgentError('an endless agent expression')"])

    def _compile(self, block: _Block, start: int) -> None:
        at = start
        while (op := self._ops.get(at)) is not None:
            if at in self._leaders and at != start:
                return block.leave(str(at), at)
            if op.code == _END:
                block.lines.append(f"return {block.stack[-1] if block.stack else 0}")
                return None
            if op.code == _GOTO:
                return block.leave(str(op.operand), op.operand)
            if op.code == _IF_GOTO:
                condition = block.name(block.pop())
                return block.leave(f"{op.operand} if {condition} else {op.next}", op.operand, op.next)
            block.compute(op)
            at = op.next
        raise Malformed("an agent expression runs past its end")


def compile_expression(bytecode: bytes) -> Expression:
    """Compile; raises Malformed for anything that is not a well-formed expression (or uses trace state variables)."""
    if len(bytecode) > _MAX_LENGTH:
        raise Malformed("an agent expression is too long")
    namespace = dict(_HELPERS)
    exec(compile(_Compiler(bytecode).source(), "<agent expression>", "exec"), namespace)
    run = namespace["run"]
    return Expression(bytecode, run)  # type: ignore[arg-type]
