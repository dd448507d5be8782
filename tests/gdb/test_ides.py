"""What an IDE does, over the Debug Adapter Protocol: cdt-gdb-adapter with Debian's gdb, and gdb 18's own adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gdb.clients import PROGRAMS, build, emugdb, serving
from tests.gdb.newer_clients import Adapter, adapter, cdt_adapter, client

pytestmark = pytest.mark.slow
SOURCE = PROGRAMS / "spinner.c"


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(SOURCE.read_text().splitlines(), 1) if text in line)


def variables(ide: Adapter, frame: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for scope in ide.request("scopes", frameId=frame)["scopes"]:
        if scope["name"] in ("Registers",):
            continue
        body = ide.request("variables", variablesReference=scope["variablesReference"])
        found |= {variable["name"]: variable["value"] for variable in body["variables"]}
    return found


def session(ide: Adapter, attach: dict[str, Any], *, stops_first: bool) -> None:
    """Attach, break, look, step, run, pause, part."""
    ide.request(
        "initialize", clientID="test", adapterID="gdb", pathFormat="path", linesStartAt1=True, columnsStartAt1=True
    )
    attaching = ide.send("attach", **attach)
    ide.wait_event("initialized")
    line = line_of("int sum =")
    body = ide.request("setBreakpoints", source={"path": str(SOURCE)}, breakpoints=[{"line": line}])
    assert len(body["breakpoints"]) == 1
    ide.request("configurationDone")
    response = ide.wait_response(attaching, "attach")
    assert response["success"], response
    if stops_first:
        ide.wait_event("stopped", reason="attach")
        ide.request("continue", threadId=1)
    stopped = ide.wait_event("stopped", reason="breakpoint")
    thread = stopped.get("threadId") or ide.request("threads")["threads"][0]["id"]
    frames = ide.request("stackTrace", threadId=thread)["stackFrames"]
    assert [frame["name"].partition("(")[0] for frame in frames[:2]] == ["add", "main"]
    assert frames[0]["line"] == line
    assert Path(frames[0]["source"]["path"]).name == "spinner.c"
    seen = variables(ide, frames[0]["id"])
    assert (seen["left"], seen["right"]) == ("0", "1")
    assert ide.request("evaluate", expression="left + 41", frameId=frames[0]["id"], context="watch")["result"] == "41"

    ide.request("next", threadId=thread)
    ide.wait_event("stopped", reason="step")
    frames = ide.request("stackTrace", threadId=thread)["stackFrames"]
    assert frames[0]["line"] == line + 1
    assert variables(ide, frames[0]["id"])["sum"] == "1"
    ide.request("stepOut", threadId=thread)
    ide.wait_event("stopped")

    ide.request("setBreakpoints", source={"path": str(SOURCE)}, breakpoints=[])
    for _ in range(2):
        ide.events.clear()
        ide.request("continue", threadId=thread)
        ide.request("pause", threadId=thread)
        ide.wait_event("stopped")
        frames = ide.request("stackTrace", threadId=thread)["stackFrames"]
        assert frames[-1]["name"].partition("(")[0] == "main"
    ide.request("disconnect", terminateDebuggee=True)


def test_cdt_gdb_adapter() -> None:
    program = build("spinner")
    command = cdt_adapter()
    with serving(emugdb(program)) as server, adapter(command) as ide:
        target = {"type": "remote", "host": "127.0.0.1", "port": str(server.port)}
        session(ide, {"gdb": "gdb", "program": str(program), "target": target, "initCommands": []}, stops_first=False)


def test_gdb_18s_own_adapter() -> None:
    program = build("spinner")
    gdb = client("gdb")
    with serving(emugdb(program)) as server, adapter([gdb, "-nx", "-q", "-i=dap"]) as ide:
        session(ide, {"program": str(program), "target": f"127.0.0.1:{server.port}"}, stops_first=True)
