"""Callbacks that watch a run: for any Keras model, not only this package's."""
