"""The CPU and its MMU: the only package that touches Unicorn."""
