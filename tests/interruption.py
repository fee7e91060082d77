"""An end of a training in the middle of an epoch."""

import keras


class InterruptedAtError(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    """Ends the training in an epoch, after a step of it."""

    def __init__(self, epoch, error=InterruptedAtError):
        super().__init__()
        self.at = epoch
        self.error = error

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.at:
            raise self.error
