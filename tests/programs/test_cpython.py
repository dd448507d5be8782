"""CPython's own tests (Debian's libpython3.11-testsuite): the same passes, failures and skips as natively."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.harness import ROOT

PYTHON = "/usr/bin/python3"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LONG = ("test_signal", "test_threading", "test_subprocess")
MODULES = [
    *("test_epoll", "test_select", "test_mmap", "test_os", "test_socket"),
    *(pytest.param(name, marks=pytest.mark.long) for name in LONG),
]
# Where they may differ, with the reason: "module" -> a test's name -> why.
EXPLAINED: dict[str, dict[str, str]] = {}
HEAD = re.compile(r"^(test\w+) \((\S+)\)", re.MULTILINE)
# Behind the dots, or on a line of its own where the test has printed something in between.
VERDICT = re.compile(r"(?:\.\.\. |^)(ok|FAIL|ERROR|skipped|expected failure)\b", re.MULTILINE)


def verdicts(module: str, folder: Path, emulated: bool) -> dict[str, str]:
    """What every test of a module ended with."""
    words = [PYTHON, "-m", "test", "-v", "-i", "*VSOCK*", module]
    environment = {
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }
    if emulated:
        start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from emulator.cli import main; main()"
        words = [sys.executable, "-c", start, "--run", *words]
    done = subprocess.run(
        words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=800, check=False,
    )  # fmt: skip
    text = done.stdout.decode(errors="replace")
    heads = list(HEAD.finditer(text))
    found: dict[str, str] = {}
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        verdict = VERDICT.search(text, head.end(), following.start() if following else len(text))
        if verdict:
            found.setdefault(f"{head[1]} {head[2]}", verdict[1])
    assert re.search(r"^Ran \d+ tests", text, re.MULTILINE), text[-2000:]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_same_verdicts(module: str, tmp_path: Path) -> None:
    if shutil.which(PYTHON) is None or not Path(f"/usr/lib/python3.11/test/{module}.py").exists():
        pytest.skip("not installed: libpython3.11-testsuite")
    (tmp_path / "n").mkdir()
    (tmp_path / "e").mkdir()
    native = verdicts(module, tmp_path / "n", emulated=False)
    emulated = verdicts(module, tmp_path / "e", emulated=True)
    assert len(native) > 4
    different = {
        name: (verdict, emulated.get(name)) for name, verdict in native.items() if emulated.get(name) != verdict
    }
    assert {name: pair for name, pair in different.items() if name.split()[0] not in EXPLAINED.get(module, {})} == {}
