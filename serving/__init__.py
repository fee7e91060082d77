"""Serves a classifier over HTTP: a page for people and an API for programs.

This package imports neither Keras nor TensorFlow. Whoever starts it passes a
`ServedModel`, which computes with any library.
"""

from keras_flowers_serving.app import create_app as create_app
from keras_flowers_serving.limits import Limits as Limits
from keras_flowers_serving.model import ServedModel as ServedModel
from keras_flowers_serving.model import serve_exported as serve_exported
from keras_flowers_serving.server import open_socket as open_socket
from keras_flowers_serving.server import run_server as run_server
