"""Classifies images with an exported model, without Keras and TensorFlow.

What training and an exported model must do alike, such as decoding images, is here
once: `keras_flowers` builds on this package, which imports nothing of it.
"""

from keras_flowers_runtime.classification import Classification as Classification
from keras_flowers_runtime.errors import InputError as InputError
from keras_flowers_runtime.exported import ExportedClassifier as ExportedClassifier
from keras_flowers_runtime.exported import load_exported as load_exported
