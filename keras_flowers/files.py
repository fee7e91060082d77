"""Writes files that appear at once; shows paths on one line and numbers in JSON."""

from keras_flowers_runtime.files import explain_os_error as explain_os_error
from keras_flowers_runtime.files import find_existing_folder as find_existing_folder
from keras_flowers_runtime.files import json_text as json_text
from keras_flowers_runtime.files import path_below as path_below
from keras_flowers_runtime.files import printable_path as printable_path
from keras_flowers_runtime.files import remove_leftovers as remove_leftovers
from keras_flowers_runtime.files import (
    require_writable_folder as require_writable_folder,
)
from keras_flowers_runtime.files import temporary_sibling as temporary_sibling
from keras_flowers_runtime.files import write_csv_atomically as write_csv_atomically
from keras_flowers_runtime.files import write_text_atomically as write_text_atomically
