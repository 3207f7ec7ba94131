"""Unicorn and nothing else: state window, rings, traps, translation engines."""
