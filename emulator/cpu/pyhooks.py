"""The Python twin of the C hooks: the same classes, slower.  Not written yet."""

from __future__ import annotations

raise ImportError("the Python hooks are not there yet: build the C ones (python setup.py build_ext --inplace)")
