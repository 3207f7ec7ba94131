"""Guest RAM, its frames, and the page tables that live in it."""
