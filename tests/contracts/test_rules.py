"""House rules a syntax tree can see: no ISA questions, one door to the host, no assert on foreign input, docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.contracts.source import ROOT, Module, imports, modules

ISA_NAMES = {
    "x86_64", "aarch64", "i386", "arm", "riscv64", "mips", "mipsel", "ppc", "s390x", "X86_64", "AARCH64", "I386", "ARM",
    "UC_ARCH_X86", "UC_ARCH_ARM64",
}  # fmt: skip
# The only door to the host is kernel/host.py; cpu/ owns its arena; the command line and the loader of the guest's
# program start before there is a kernel; the stub's shell is trio's business.
HOST_MODULES = {"socket", "select", "selectors", "fcntl", "termios", "subprocess", "resource", "tempfile", "shutil"}
MAY_CALL_HOST = ("emulator.kernel.host", "emulator.cpu", "emulator.cli", "emulator.__main__", "gdbstub.server")
# Pure parts of `os`: names of constants and path arithmetic.
PURE_OS = {"path", "fsencode", "fsdecode", "PathLike", "strerror", "sep", "WNOHANG", "environ"}
FILE_BUDGET_LINES = 550


def every(*skip: str) -> list[Module]:
    return [module for module in modules() if not module.name.startswith(skip)] if skip else list(modules())


def isa_questions(module: Module) -> Iterator[str]:
    """Comparisons with the name or the value of one ISA."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Compare):
            continue
        for side in (node.left, *node.comparators):
            text = side.value if isinstance(side, ast.Constant) else ast.unparse(side).split(".")[-1]
            if text in ISA_NAMES:
                yield f"{module.path}:{node.lineno}: {ast.unparse(node)}"


def test_nobody_asks_which_isa_it_is() -> None:
    asked = every("emulator.arch", "emulator.abi")
    assert [line for module in asked for line in isa_questions(module)] == []


def host_calls(module: Module) -> Iterator[str]:
    """Imports of host modules, and uses of `os` which call the host."""
    for name, line, typing_only in imports(module):
        if name.split(".")[0] in HOST_MODULES and not typing_only:
            yield f"{module.path}:{line}: imports {name}"
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr=attribute)) if attribute not in PURE_OS:
                yield f"{module.path}:{node.lineno}: os.{attribute}"
            case ast.Call(func=ast.Name(id="open")):
                yield f"{module.path}:{node.lineno}: open"


def test_host_is_called_only_through_its_door() -> None:
    assert [line for module in every(*MAY_CALL_HOST) for line in host_calls(module)] == []


def test_foreign_input_never_meets_assert() -> None:
    found = [
        f"{module.path}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    assert [module.path for module in modules() if not ast.get_docstring(module.tree)] == []


def test_file_length_budget() -> None:
    """A longer file is two ideas."""
    lengths = {module.path: module.lines for module in modules()}
    lengths |= {str(file): len(file.read_text().splitlines()) for file in (ROOT / "emulator/cpu/hooks").glob("*.[ch]")}
    assert {path: lines for path, lines in lengths.items() if lines > FILE_BUDGET_LINES} == {}
