"""Ordinary Debian programs, each run on the host and under mmuemu: ``python -m tests.corpus`` makes docs/compat.md."""
