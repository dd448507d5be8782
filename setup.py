"""Build the C hooks where a compiler exists; without one the Python twin takes over (emulator/cpu/pyhooks.py)."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "emulator.cpu._hooks",
            sources=[
                f"emulator/cpu/hooks/{name}.c"
                for name in ("access", "arena", "core", "decoder", "engine", "floats", "plt", "run", "scan", "table")
            ],
            depends=["emulator/cpu/hooks/hooks.h", "emulator/cpu/hooks/engine.h"],
            extra_compile_args=["-O2", "-std=gnu11", "-Wall", "-Wno-unused-parameter"],
            optional=True,
        )
    ]
)
