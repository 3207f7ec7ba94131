"""gdb's remote serial protocol for the programs of a machine and for a board (gdb manual, appendix E)."""
