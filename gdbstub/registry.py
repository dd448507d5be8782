"""What packets there are; dispatch and qSupported are computed from it.

Rule: a packet is one decorated function, and the manual's template line is its row:

    @packet("Z type,addr,kind[;extra]", needs=Breakpoints, advertises="swbreak+")
    def insert(c: Context, type: PointType, addr: int, kind: int, extra: bytes = b"") -> Reply: ...

The template's first word is what the packet begins with; the names behind it are the function's parameters, separated
on the wire by what stands between them (nothing, after the blank), optional within brackets; the last takes what is
left.  A parameter's annotation says how it is read: int is hex, bytes is raw, Hex and Escaped are decoded, ThreadId and
Signal are those, an Enum is by its number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from inspect import Parameter, signature
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, get_type_hints

from gdbstub.encoding import escape, from_hex, hex_number, unescape
from gdbstub.errors import FileError, Malformed, TargetError, Unsupported
from gdbstub.signals import Signal, parse_signal
from gdbstub.thread_id import ThreadId, parse_thread_id


class Verdict(Enum):
    """Replies that are not bytes."""

    RESUMED = "the stop reply is the reply"
    ENDED = "the session is over and nothing more is said"
    SILENT = "the packet has no reply"


@dataclass(frozen=True, slots=True)
class Farewell:
    """This reply, then the end of the session."""

    reply: bytes


Reply = bytes | Verdict | Farewell
OK = b"OK"
Hex = Annotated[bytes, from_hex]
Escaped = Annotated[bytes, unescape]

Handler = Callable[[Any, bytes], Reply]
F = TypeVar("F", bound=Callable[..., object])
Abilities = tuple[type, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One packet: `word` begins it, `handle` gets what follows the word."""

    word: str
    template: str
    handle: Handler
    needs: Abilities
    advertises: str
    summary: str


class Dispatch:
    """The packets of one target: exact look-ups, whatever their number."""

    __slots__ = ("_glued", "_letters", "_words", "features", "rows")

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = tuple(rows)
        # no word begins with the letter of a one-letter packet
        self._letters = {row.word.encode(): row.handle for row in self.rows if len(row.word) == 1}
        self._words = {row.word.encode(): row.handle for row in self.rows}
        glued = [row for row in self.rows if len(row.word) > 1 and " " in row.template]
        self._glued = sorted(((row.word.encode(), row.handle) for row in glued), key=lambda item: -len(item[0]))
        self.features = tuple(feature for row in self.rows for feature in row.advertises.split(";") if feature)

    def find(self, payload: bytes) -> tuple[Handler, bytes]:
        """The handler and its arguments; raises Unsupported."""
        if (handle := self._letters.get(payload[:1])) is not None:
            return handle, payload[1:]
        match = _WORD.match(payload)
        word = match[0] if match else payload
        while word:
            if (handle := self._words.get(word)) is not None:
                return handle, payload[len(word) :]
            word = word.rpartition(b":")[0]
        for prefix, handle in self._glued:
            if payload.startswith(prefix):
                return handle, payload[len(prefix) :]
        raise Unsupported


_WORD = re.compile(rb"[^;,:]+(?::[a-zA-Z0-9-]+){0,2}")


class Registry:
    """Rows in order of definition; closed by the first look."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._closed = False

    def add(self, row: Row) -> None:
        """Take a row; a word that is there already is a programming error."""
        if self._closed or any(known.word == row.word for known in self._rows):
            raise ValueError(f"packet {row.word} is registered twice, or too late")
        self._rows.append(row)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Everything that can be registered, whatever a target has."""
        self._closed = True
        return tuple(self._rows)

    def dispatch(self, target: object) -> Dispatch:
        """What is left for a target with its abilities."""
        return Dispatch(row for row in self.rows if all(isinstance(target, ability) for ability in row.needs))


REGISTRY = Registry()

# ------------------------------------------------------------------------------------------------------------ arguments


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Malformed("not text") from None


_CONVERTERS: Mapping[object, Callable[[bytes], object]] = MappingProxyType(
    {int: hex_number, bytes: bytes, str: _text, ThreadId: parse_thread_id, Signal: parse_signal}
)


def _converter(annotation: object) -> Callable[[bytes], object]:
    if hasattr(annotation, "__metadata__"):
        converter: Callable[[bytes], object] = annotation.__metadata__[0]
        return converter
    if (known := _CONVERTERS.get(annotation)) is not None:
        return known
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        name = annotation.__name__
        members = {each.value: each for each in annotation}

        def member(data: bytes) -> object:
            found = members.get(hex_number(data))
            if found is None:
                raise Malformed(f"no {name}: {data[:20]!r}")
            return found

        return member
    raise TypeError(f"no way to read a {annotation!r} from a packet")


_TOKEN = re.compile(r"[a-z_][a-z_-]*|\[|\]|.")


@dataclass(frozen=True, slots=True)
class _Argument:
    separator: bytes  # what stands before it
    convert: Callable[[bytes], object]
    optional: bool


def _plan(template: str, function: Callable[..., object]) -> list[_Argument]:
    hints = get_type_hints(function, include_extras=True)
    parameters = list(signature(function).parameters.values())[1:]
    plan = []
    separator = ""
    names = []
    for token in _TOKEN.findall(template):
        if token in "[]":
            continue
        if not token[0].isalpha() and token[0] != "_":
            separator += token
            continue
        name = token.replace("-", "_")
        names.append(name)
        parameter = next((each for each in parameters if each.name == name), None)
        if parameter is None:
            raise TypeError(f"{function.__name__} has no parameter {name}")
        optional = parameter.default is not Parameter.empty
        plan.append(_Argument(separator.encode(), _converter(hints[name]), optional))
        separator = ""
    if names != [parameter.name for parameter in parameters]:
        raise TypeError(f"{function.__name__}: template {template!r} and parameters differ")
    return plan


def reader(template: str, function: Callable[..., Any]) -> Handler:
    """A handler that reads the template's arguments from bytes and calls the function."""
    plan = _plan(template, function)
    if not plan:

        def bare(context: Any, rest: bytes) -> Reply:
            if rest:
                raise Unsupported
            return function(context)  # type: ignore[no-any-return]

        return bare
    if len(plan) == 1 and not plan[0].separator and not plan[0].optional:
        convert = plan[0].convert
        return lambda context, rest: function(context, convert(rest))
    if len(plan) == 2 and plan[1].separator and not (plan[0].separator or plan[0].optional or plan[1].optional):
        first, second, between = plan[0].convert, plan[1].convert, plan[1].separator

        def pair(context: Any, rest: bytes) -> Reply:
            one, found, two = rest.partition(between)
            if not found:
                raise Malformed(f"{template}: {between!r} is missing")
            return function(context, first(one), second(two))  # type: ignore[no-any-return]

        return pair
    return _general(template, function, plan)


def _general(template: str, function: Callable[..., Any], plan: list[_Argument]) -> Handler:
    ends = [argument.separator for argument in plan[1:]] + [b""]

    def general(context: Any, rest: bytes) -> Reply:
        values = []
        if plan[0].separator:
            if not rest.startswith(plan[0].separator):
                if rest or not plan[0].optional:
                    raise Malformed(f"{template}: {plan[0].separator!r} is missing")
                return function(context)  # type: ignore[no-any-return]
            rest = rest[len(plan[0].separator) :]
        elif not rest and plan[0].optional:
            return function(context)  # type: ignore[no-any-return]
        found = b"."
        for argument, end in zip(plan, ends, strict=True):
            if not found:
                if argument.optional:
                    break
                raise Malformed(f"{template}: too few arguments")
            if end:
                piece, found, rest = rest.partition(end)
            else:
                piece = rest
            values.append(argument.convert(piece))
        return function(context, *values)  # type: ignore[no-any-return]

    return general


# ----------------------------------------------------------------------------------------------------------- decorators


def _needs(needs: type | Abilities) -> Abilities:
    return needs if isinstance(needs, tuple) else (needs,)


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


def packet(template: str, *, needs: type | Abilities = (), advertises: str = "") -> Callable[[F], F]:
    """Register a packet; the function takes the Context and the template's arguments and returns a Reply."""
    match = re.match(r"[A-Za-z!?_]+[?]?(?::[a-z-]+(?=:))?", template)
    if match is None:
        raise ValueError(f"not a packet template: {template!r}")
    word = match[0]
    arguments = template[len(word) :].lstrip(" ")

    def register(function: F) -> F:
        row = Row(word, template, reader(arguments, function), _needs(needs), advertises, _summary(function))
        REGISTRY.add(row)
        return function

    return register


def xfer(
    name: str, *, needs: type | Abilities = (), advertises: str = ""
) -> Callable[[Callable[[Any, str], bytes]], Callable[[Any, str], bytes]]:
    """Register a readable object of qXfer: slicing, the m/l answers and the advertisement are derived.

    The function takes the Context and the annex and returns the whole object; a read from offset 0 makes a new one.
    """

    def register(function: Callable[[Any, str], bytes]) -> Callable[[Any, str], bytes]:
        def read(context: Any, annex: str, offset: int, length: int) -> Reply:
            key = (name, annex)
            if offset == 0 or context.xfer_key != key:
                context.xfer_object = function(context, annex)
                context.xfer_key = key
            return slice_of(context.xfer_object, offset, length, context.packet_size)

        feature = f"qXfer:{name}:read+" + (f";{advertises}" if advertises else "")
        handle = reader(":annex:offset,length", read)
        template = f"qXfer:{name}:read:annex:offset,length"
        REGISTRY.add(Row(f"qXfer:{name}:read", template, handle, _needs(needs), feature, _summary(function)))
        return function

    return register


def slice_of(data: bytes, offset: int, length: int, packet_size: int) -> bytes:
    """`m` or `l` and as much as was asked for, or as fits a packet."""
    piece = data[offset : offset + length]
    escaped = escape(piece)
    while len(escaped) >= packet_size:
        piece = piece[: len(piece) // 2]
        escaped = escape(piece)
    return (b"m" if offset + len(piece) < len(data) else b"l") + escaped


def xfer_write(name: str, *, needs: type | Abilities = ()) -> Callable[[F], F]:
    """Register a writable object of qXfer: the function takes Context, annex, offset and data, returns the count."""

    def register(function: F) -> F:
        def write(context: Any, annex: str, offset: int, data: Escaped) -> Reply:
            count: Any = function(context, annex, offset, data)
            return b"%x" % count

        handle = reader(":annex:offset:data", write)
        template = f"qXfer:{name}:write:annex:offset:data"
        row = Row(f"qXfer:{name}:write", template, handle, _needs(needs), f"qXfer:{name}:write+", _summary(function))
        REGISTRY.add(row)
        return function

    return register


# The protocol's errno numbers (manual: "Errno Values")
FILE_ERRNO: Mapping[str, int] = MappingProxyType(
    {"EPERM": 1, "ENOENT": 2, "EINTR": 4, "EIO": 5, "EBADF": 9, "EACCES": 13, "EFAULT": 14, "EBUSY": 16}
    | {"EEXIST": 17, "ENODEV": 19, "ENOTDIR": 20, "EISDIR": 21, "EINVAL": 22, "ENFILE": 23, "EMFILE": 24}
    | {"EFBIG": 27, "ENOSPC": 28, "ESPIPE": 29, "EROFS": 30, "ENOSYS": 88, "ENAMETOOLONG": 91}
)
FILE_UNKNOWN = 9999


def host_io(template: str, *, needs: type | Abilities = ()) -> Callable[[F], F]:
    """Register a vFile operation, "pread fd,count,offset": the function returns the result, or bytes to attach."""
    operation, _, arguments = template.partition(" ")

    def register(function: F) -> F:
        read = reader(":" + arguments, function)

        def handle(context: Any, rest: bytes) -> Reply:
            try:
                result: Any = read(context, rest)
            except FileError as error:
                return b"F-1,%x" % FILE_ERRNO.get(error.name, FILE_UNKNOWN)
            except TargetError:
                return b"F-1,%x" % FILE_ERRNO["EINVAL"]
            if isinstance(result, bytes):
                return b"F%x;%b" % (len(result), escape(result))
            return b"F%x" % result

        row = Row(f"vFile:{operation}", f"vFile:{operation}:{arguments}", handle, _needs(needs), "", _summary(function))
        REGISTRY.add(row)
        return function

    return register
