"""What the contract tests read: the source of both packages as syntax trees, parsed once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gdbstub", "emulator")


@dataclass(frozen=True, slots=True)
class Module:
    """One source file: its dotted name, its path from the root of the checkout, its tree."""

    name: str
    path: str
    tree: ast.Module
    lines: int


@cache
def modules() -> tuple[Module, ...]:
    """Every module of both packages."""
    found = []
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            path = file.relative_to(ROOT)
            dotted = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
            text = file.read_text()
            found.append(Module(dotted, str(path), ast.parse(text), text.count("\n")))
    return tuple(found)


def imports(module: Module) -> Iterator[tuple[str, int, bool]]:
    """Absolute names of what a module imports, with the line, and whether only the type checker sees it."""
    typing_only: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only.update(id(inner) for statement in node.body for inner in ast.walk(statement))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = module.name.split(".")
                is_package = module.path.endswith("__init__.py")
                parent = parent[: len(parent) - node.level + is_package]
                base = ".".join([*parent, base] if base else parent)
            known = {each.name for each in modules()}
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if full in known else base), node.lineno, id(node) in typing_only
