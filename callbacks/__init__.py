"""Callbacks that watch a run: for any Keras model, not only this package's."""

from keras_flowers.callbacks.collapse_detector import Collapse as Collapse
from keras_flowers.callbacks.collapse_detector import (
    CollapseDetector as CollapseDetector,
)
from keras_flowers.callbacks.collapse_detector import CollapseWarning as CollapseWarning
from keras_flowers.callbacks.history_logger import HistoryLogger as HistoryLogger
from keras_flowers.callbacks.run_record import TensorBoardOptions as TensorBoardOptions
from keras_flowers.callbacks.tensorboard import TensorBoard as TensorBoard
from keras_flowers.callbacks.training_checkpoint import (
    TrainingCheckpoint as TrainingCheckpoint,
)

from keras_flowers.history import read_history as read_history
from keras_flowers.plots.history import plot_history as plot_history
