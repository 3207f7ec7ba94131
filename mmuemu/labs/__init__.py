"""Exercises with graders: what ``mmuemu lab`` lists, starts and checks. The exercises themselves are in ``exercises/``."""
