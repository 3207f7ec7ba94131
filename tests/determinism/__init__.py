"""The same run twice: a hash of all a guest can see, over engines, Pythons and machines."""
