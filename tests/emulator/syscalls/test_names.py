"""The machine's names are bytes: whatever a program sets, it reads."""

from __future__ import annotations

import pytest

from tests.emulator.syscalls.rig import make_rig


@pytest.mark.parametrize("name", [b"plain", b"\xff\xfe", "gr\u00fc\u00df".encode(), b"x" * 64, b"cut\0off"])
@pytest.mark.parametrize(("call", "field"), [("sethostname", 1), ("setdomainname", 5)])
def test_names_come_back(call: str, field: int, name: bytes) -> None:
    rig = make_rig()
    assert rig.call(call, rig.put(name), len(name)) == 0
    where = rig.room(6 * 65)
    rig.call("uname", where)
    assert rig.t.memory.read(where + field * 65, 65).split(b"\0")[0] == name.split(b"\0")[0]
