"""The command line of keras_flowers.

Nothing here imports Keras before a command really needs it, so that help, version
and usage errors answer at once.
"""
