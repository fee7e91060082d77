"""Train an image classifier on a folder of photos, in Keras."""

from keras_flowers.errors import InputError as InputError
from keras_flowers.registration import custom_object_scope as custom_object_scope
from keras_flowers.registration import custom_objects as custom_objects
from keras_flowers.version import __version__ as __version__
