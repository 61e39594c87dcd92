"""Experiment files that ship with regraft."""
