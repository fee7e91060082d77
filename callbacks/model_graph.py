"""The graphs of a model, for the Graphs tab."""

import inspect
import posixpath
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
    """Returns the `tf.compat.v1.GraphDef` of a call in training."""
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

    graph = tf.function(forward).get_concrete_function(inputs).graph
    return _with_names_of_layers(graph.as_graph_def(), _layer_names(model))


def _layer_names(model: keras.Model) -> set[str]:
    names = {model.name}
    for layer in model.layers:
        names.add(layer.name)
        if isinstance(layer, keras.Model):
            names |= _layer_names(layer)
    return names


def _with_names_of_layers(graph: Any, names: set[str]) -> Any:
    """Gives the scopes of a graph the names of their layers.

    Keras opens the scope of a layer twice, and TensorFlow numbers the second one: the
    layer `dense` stands in the graph as `dense_1`, which may be that of another.
    """
    renamed: dict[str, str] = {}  # from each scope, as a whole path
    taken: set[str] = set()
    for node in graph.node:
        parts = node.name.split("/")
        for depth in range(1, len(parts)):
            scope = "/".join(parts[:depth])
            if scope in renamed:
                continue
            above = renamed.get("/".join(parts[: depth - 1]), "")
            name, _, number = parts[depth - 1].rpartition("_")
            is_layer = name in names and number.isdecimal()
            # A layer that is called twice keeps its numbers.
            if not is_layer or posixpath.join(above, name) in taken:
                name = parts[depth - 1]
            renamed[scope] = posixpath.join(above, name)
            taken.add(renamed[scope])
    for node in graph.node:
        node.name = _renamed(node.name, renamed)
        node.input[:] = [_renamed(name, renamed) for name in node.input]
    return graph


def _renamed(name: str, scopes: dict[str, str]) -> str:
    mark = "^" if name.startswith("^") else ""  # of a control dependency
    scope, slash, last = name[len(mark) :].rpartition("/")
    return mark + scopes.get(scope, scope) + slash + last


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
