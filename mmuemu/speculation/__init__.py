"""Transient execution: caches, predictors, windows and the CPU models that say which of them leak what."""
