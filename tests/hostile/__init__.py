"""Bad input for every system call: hostile arguments one by one, at random, in masses, and towards the host."""
