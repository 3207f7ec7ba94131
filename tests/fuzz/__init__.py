"""Fuzzing: each module with ``one(data)`` is a target; ``python -m tests.fuzz`` runs them (docs/howto-fuzz.md)."""
