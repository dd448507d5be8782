"""Build the C hooks where a compiler exists; without one the Python twin takes over (emulator/cpu/pyhooks)."""

from glob import glob

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "emulator.cpu._hooks",
            sources=sorted(glob("emulator/cpu/hooks/*.c")),
            depends=sorted(glob("emulator/cpu/hooks/*.h")),
            extra_compile_args=["-O2", "-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wno-unused-parameter"],
            optional=True,
        )
    ]
)
