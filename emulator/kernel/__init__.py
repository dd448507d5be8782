"""The kernel's objects: the things with lifetimes."""
