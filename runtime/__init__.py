"""Classifies images with an exported model, without Keras and TensorFlow.

This package also contains what training and an exported model must do in the same way,
such as decoding images. `keras_flowers` imports it, never the other way round.
"""

from keras_flowers_runtime.classification import Classification as Classification
from keras_flowers_runtime.errors import InputError as InputError
from keras_flowers_runtime.exported import ExportedClassifier as ExportedClassifier
from keras_flowers_runtime.exported import load_exported as load_exported
