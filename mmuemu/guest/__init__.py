"""Code that runs inside the machine, as source and as the bytes built from it."""
