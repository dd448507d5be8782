"""Spell <flags>, <vector> and <union> of a target description (gdb manual, "Target Description Format")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def flags(name: str, size: int, bits: Mapping[int, str]) -> str:
    """A flags type whose fields are single bits."""
    fields = "".join(f'<field name="{field}" start="{bit}" end="{bit}"/>' for bit, field in bits.items())
    return f'<flags id="{name}" size="{size}">{fields}</flags>'


def field_flags(name: str, size: int, fields: Sequence[tuple[str, int, int]]) -> str:
    """A flags type with fields (name, first bit, last bit)."""
    body = "".join(f'<field name="{field}" start="{start}" end="{end}"/>' for field, start, end in fields)
    return f'<flags id="{name}" size="{size}">{body}</flags>'


def vectors(types: Mapping[str, tuple[str, int]]) -> str:
    """Vector types: id -> (element type, count)."""
    return "".join(f'<vector id="{name}" type="{of}" count="{count}"/>' for name, (of, count) in types.items())


def union(name: str, fields: Mapping[str, str]) -> str:
    """A union type: field -> type."""
    body = "".join(f'<field name="{field}" type="{of}"/>' for field, of in fields.items())
    return f'<union id="{name}">{body}</union>'
