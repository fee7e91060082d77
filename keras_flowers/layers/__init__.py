"""Keras layers from raw images to what a network sees."""
