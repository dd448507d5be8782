"""Whatever a client sends: the session survives, and every packet gets one reply."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from gdbstub.encoding import escape, frame
from gdbstub.registry import REGISTRY
from gdbstub.session import Session
from tests.gdbstub.fake import Client, FakeTarget

WORDS = [row.word for row in REGISTRY.rows]
SILENT = re.compile(rb"k|R")  # packets without a reply
numbers = st.one_of(
    st.integers(0, 2**70).map(lambda n: b"%x" % n),
    st.sampled_from([b"", b"-1", b"0", b"2a", b"p2a.2a", b"p0.0", b"p-1.-1", b"1000", b"1", b"thread:2a"]),
    st.binary(max_size=6).map(escape),
    st.binary(max_size=20).map(lambda data: data.hex().encode()),
)
arguments = st.lists(st.one_of(numbers, st.sampled_from([b",", b":", b";", b"=", b"X", b"cmds:"])), max_size=10)
packets = st.builds(
    lambda word, rest: word.encode() + b"".join(rest),
    st.one_of(st.sampled_from(WORDS), st.text("abcdefgqQvXZzm?!", max_size=3)),
    arguments,
)


def looping() -> FakeTarget:
    target = FakeTarget()
    target.memory[0x40] = 0xF4  # nothing runs for ever
    return target


@given(st.lists(packets, max_size=12))
def test_one_reply_a_packet(payloads: list[bytes]) -> None:
    client = Client(looping(), "multiprocess+", "swbreak+")
    for payload in payloads:
        if b"#" in payload or payload[:1] == b"$" or SILENT.match(payload):
            continue
        replies = client.talk(payload)
        if client.session.ended:
            break
        if client.session.busy:
            replies += client.parse(client.session.receive(b"\x03"))
        if client.session.ended:
            break
        assert len(replies) == 1, (payload, replies)
    client.session.close()


@given(st.lists(st.one_of(st.binary(max_size=40), packets.map(frame), st.sampled_from([b"\x03", b"+", b"-"]))))
def test_any_bytes(portions: list[bytes]) -> None:
    target = looping()
    session = Session(target)
    for portion in portions:
        session.receive(portion)
        for _ in range(3):
            if session.runnable:
                session.run()
    session.close()
    # and the next client is served
    target.script.clear()
    if target.threads():
        assert Client(target).ask("vMustReplyEmpty") == b""
