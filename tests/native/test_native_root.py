"""In a root that has nothing, the C library still finds its devices: the same lines as on the host."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.native import harness

pytestmark = pytest.mark.skipif(harness.available() is not None, reason=str(harness.available()))


@pytest.mark.parametrize("with_dev", [False, True], ids=["without /dev", "with an empty /dev"])
def test_devices_in_an_empty_root(tmp_path: Path, with_dev: bool) -> None:
    binary = harness.build("device_names", "static")
    shutil.copy(binary, tmp_path / "program")
    if with_dev:
        (tmp_path / "dev").mkdir()
    native = harness.run_native(binary)
    emulated = harness.run_emulated(Path("/program"), "--root", str(tmp_path))
    assert emulated.cases == native.cases, emulated.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == (["dev", "program"] if with_dev else ["program"])
