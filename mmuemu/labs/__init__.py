"""Exercises with graders: what ``mmuemu lab`` lists, starts and checks. They are in ``exercises/``."""
