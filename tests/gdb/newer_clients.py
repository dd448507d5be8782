"""Debuggers that Debian does not have: where scripts/test put them, and a client of the Debug Adapter Protocol.

Rule: what is not installed is skipped with the command that installs it; EMUGDB_CLIENTS and EMUGDB_NPM name other
folders to look in.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.native.harness import ROOT

WAIT_S = 60.0


def client(name: str) -> str:
    """Path of a debugger that pip installs (gdb 18, lldb)."""
    folders = [os.environ.get("EMUGDB_CLIENTS"), str(Path(sys.executable).parent)]
    for folder in filter(None, folders):
        path = Path(folder) / name
        if path.exists():
            return str(path)
    pytest.skip(f"no {name}: pip install -e '.[clients]'")


def cdt_adapter() -> list[str]:
    """Command of npm's cdt-gdb-adapter."""
    places = [ROOT / ".tools", *(Path(folder) for folder in [os.environ.get("EMUGDB_NPM", "")] if folder)]
    for place in places:
        path = place / "node_modules" / "cdt-gdb-adapter" / "dist" / "debugTargetAdapter.js"
        if path.exists() and shutil.which("node"):
            return ["node", str(path)]
    pytest.skip("no debug adapter: npm install --prefix .tools cdt-gdb-adapter")


class Adapter:
    """Speaks DAP to an adapter's stdin and stdout."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._buffer = b""
        self._sequence = 0
        self.events: list[dict[str, Any]] = []
        self._responses: dict[int, dict[str, Any]] = {}

    def request(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Ask and wait for the response's body; a failure is an assertion."""
        response = self.wait_response(self.send(command, **arguments), command)
        if not response["success"]:
            raise AssertionError(f"{command}: {response.get('message')} {response.get('body')}")
        body: dict[str, Any] = response.get("body") or {}
        return body

    def send(self, command: str, **arguments: Any) -> int:
        """Send a request; return its number."""
        self._sequence += 1
        message = {"seq": self._sequence, "type": "request", "command": command, "arguments": arguments}
        text = json.dumps(message).encode()
        stream = self._process.stdin
        if stream is None:
            raise RuntimeError("no stdin")
        stream.write(b"Content-Length: %d\r\n\r\n%b" % (len(text), text))
        stream.flush()
        return self._sequence

    def wait_response(self, sequence: int, command: str) -> dict[str, Any]:
        """The response to a request."""
        deadline = time.monotonic() + WAIT_S
        while sequence not in self._responses:
            self._keep(self._next(deadline, command))
        return self._responses.pop(sequence)

    def wait_event(self, name: str, **body: Any) -> dict[str, Any]:
        """The next event of a name (whose body has these members), also one that came already."""
        deadline = time.monotonic() + WAIT_S
        while True:
            for index, event in enumerate(self.events):
                found: dict[str, Any] = event.get("body") or {}
                if event["event"] == name and all(found.get(key) == value for key, value in body.items()):
                    del self.events[: index + 1]
                    return found
            self._keep(self._next(deadline, f"event {name}"))

    def _keep(self, message: dict[str, Any]) -> None:
        if message["type"] == "event":
            self.events.append(message)
        elif message["type"] == "response":
            self._responses[message["request_seq"]] = message

    def _next(self, deadline: float, what: str) -> dict[str, Any]:
        stream = self._process.stdout
        if stream is None:
            raise RuntimeError("no stdout")
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if found:
                length = int(head.rpartition(b"Content-Length:")[2])
                if len(rest) >= length:
                    self._buffer = rest[length:]
                    message: dict[str, Any] = json.loads(rest[:length])
                    return message
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                raise AssertionError(f"no {what} in {WAIT_S} s; events: {self.events}")
            data = os.read(stream.fileno(), 1 << 16)
            if not data:
                raise AssertionError(f"the adapter ended while {what} was awaited; events: {self.events}")
            self._buffer += data


@contextmanager
def adapter(command: list[str]) -> Iterator[Adapter]:
    """Run an adapter; end it at the end."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield Adapter(process)
    finally:
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
