"""Machines kept: snapshots in memory, and files that another process goes on with."""
