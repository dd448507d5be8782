"""Imports point downward only: one list per package, top first."""

from __future__ import annotations

from tests.contracts.source import Module, imports, modules

# Longest prefix wins; the same number is one layer.
EMULATOR = (
    ("emulator.__main__",),
    ("emulator.cli",),
    ("emulator.debug",),
    ("emulator.machine",),
    ("emulator.serving",),
    ("emulator.syscalls",),
    ("emulator.kernel",),
    ("emulator.loader",),
    ("emulator.cpu",),
    ("emulator.arch",),
    ("emulator.errors",),
    ("emulator.abi",),
)
GDBSTUB = (
    ("gdbstub.server",),
    ("gdbstub.session",),
    ("gdbstub.packets",),
    ("gdbstub.context",),
    ("gdbstub.registry",),
    ("gdbstub.abilities", "gdbstub.stop", "gdbstub.tdesc", "gdbstub.target", "gdbstub.framing"),
    ("gdbstub.encoding", "gdbstub.thread_id", "gdbstub.signals", "gdbstub.agent"),
    ("gdbstub.errors",),
)
BOTTOM = ("emulator.errors", "emulator.abi", "gdbstub.errors")  # everybody may
MAY_USE_STUB = ("emulator.debug", "emulator.cli")
# A package's own façade is not a module of a layer.
FACADES = {"emulator", "gdbstub"}


def layer(name: str, layers: tuple[tuple[str, ...], ...]) -> int | None:
    """Height of a module: 0 is the top."""
    best: tuple[int, int] | None = None
    for index, prefixes in enumerate(layers):
        for prefix in prefixes:
            if (name == prefix or name.startswith(prefix + ".")) and (best is None or len(prefix) > best[0]):
                best = (len(prefix), index)
    return None if best is None else best[1]


def wrong_imports(module: Module) -> list[str]:
    """Sentences about imports which point upward or across."""
    wrong = []
    package = module.name.split(".")[0]
    layers = EMULATOR if package == "emulator" else GDBSTUB
    here = layer(module.name, layers)
    for name, line, typing_only in imports(module):
        top = name.split(".")[0]
        where = f"{module.path}:{line}: {name}"
        if top not in ("emulator", "gdbstub") or name in FACADES:
            continue
        if top != package:
            if package == "gdbstub":
                wrong.append(f"{where}: the protocol knows nothing of the emulator")
            elif not module.name.startswith(MAY_USE_STUB):
                wrong.append(f"{where}: only debug/ and cli.py speak to gdbstub")
            continue
        there = layer(name, layers)
        if there is None:
            wrong.append(f"{where}: not in any layer")
        elif here is not None and there < here and not typing_only and name not in BOTTOM:
            wrong.append(f"{where}: points upward")
    return wrong


def test_imports_point_downward() -> None:
    assert [line for module in modules() for line in wrong_imports(module)] == []


def test_every_module_has_a_layer() -> None:
    for module in modules():
        layers = EMULATOR if module.name.startswith("emulator") else GDBSTUB
        assert module.name in FACADES or layer(module.name, layers) is not None, module.path
