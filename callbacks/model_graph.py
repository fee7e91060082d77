"""The graphs of a model, for the Graphs tab."""

import inspect
from typing import Any

import keras
from keras_flowers.callbacks.event_files import TRAIN, EventFiles


def write_model_graphs(files: EventFiles, model: keras.Model) -> None:
    """Writes the graphs of a built model.

    On TensorFlow these are the operations of a training step's forward pass, grouped
    by layer. On every backend these are the layers themselves, TensorBoard's
    "conceptual graph"; of a `Sequential` and of a functional model Keras writes it.

    Args:
        files: Where to write.
        model: A `Sequential`, a functional model or a subclass of one.

    Raises:
        ValueError: If the model does not know its inputs, as a subclass of
            `keras.Model` with a `call` of its own.
    """
    if not getattr(model, "inputs", None):
        raise ValueError("the model does not know its inputs")
    with files.writer(TRAIN).as_default():
        if keras.backend.backend() == "tensorflow":
            files.graph(_operations(model))
        if type(model).__name__ not in ("Functional", "Sequential"):
            _write_layers(files, model)


def _operations(model: keras.Model) -> Any:
    """Returns the `tf.Graph` of a call in training."""
    import tensorflow as tf

    inputs = keras.tree.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name),
        _input(model),
    )
    takes_training = "training" in inspect.signature(model.call).parameters
    options = {"training": True} if takes_training else {}

    def forward(batch: Any) -> Any:
        with keras.StatelessScope():  # tracing, too, leaves no trace
            return model(batch, **options)

    return tf.function(forward).get_concrete_function(inputs).graph


def _input(model: keras.Model) -> Any:
    """Returns the inputs in the structure in which the model takes them."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    return model.input


def _write_layers(files: EventFiles, model: keras.Model) -> None:
    import tensorflow as tf

    # Without what a subclass says of itself in place of its layers.
    functional = keras.Model(model.inputs, model.outputs, name=model.name)
    metadata = tf.compat.v1.SummaryMetadata()
    # The name by which TensorBoard knows it, as Keras's callback writes it.
    metadata.plugin_data.plugin_name = "graph_keras_model"
    metadata.plugin_data.content = b"1"
    files.write("keras", functional.to_json(), step=0, metadata=metadata)
