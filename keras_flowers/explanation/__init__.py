"""Which parts of an image decide its class."""

from keras_flowers.explanation.explain import Explanation as Explanation
from keras_flowers.explanation.explain import explain as explain
from keras_flowers.explanation.explain import find_method as find_method
from keras_flowers.explanation.explain import heatmap_function as heatmap_function
