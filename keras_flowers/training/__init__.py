"""Loader, model and callbacks become a run."""
