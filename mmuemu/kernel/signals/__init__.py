"""Signals: what is pending, who gets it, the frame on the user's stack."""
