"""The exceptions for input that cannot be used."""

from keras_flowers_runtime.errors import FileAccessError as FileAccessError
from keras_flowers_runtime.errors import InputError as InputError
from keras_flowers_runtime.errors import first_line as first_line
