"""The soak: random programs for hours, and a look at the whole machine in the middle and at the end of each."""
