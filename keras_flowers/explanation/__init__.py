"""Which parts of an image decide its class."""

from keras_flowers.explanation.explain import Explanation as Explanation
from keras_flowers.explanation.explain import explain as explain
