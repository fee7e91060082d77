"""Searching for a better run with KerasTuner. Nothing is public here yet."""
