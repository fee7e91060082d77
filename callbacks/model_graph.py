"""Writes the graphs of a model for the Graphs tab."""

import inspect
import posixpath
from typing import Any

import keras
from keras_flowers.callbacks.event_writer import TRAIN, EventWriter


def write_model_graphs(events: EventWriter, model: keras.Model) -> None:
    """Writes the graphs of a built model.

    On TensorFlow, these are the operations of the forward pass of a training step,
    grouped by layer. On every backend, these are the layers themselves, TensorBoard's
    "conceptual graph", unless the model is a `Sequential` or a functional model: Keras
    writes that of those.

    Args:
        events: Where to write.
        model: A `Sequential`, a functional model or a subclass of one.

    Raises:
        ValueError: If the model does not know its inputs, such as a subclass of
            `keras.Model` with its own `call`.
    """
    if not getattr(model, "inputs", None):
        raise ValueError("the model does not know its inputs")
    if keras.backend.backend() == "tensorflow":
        events.write_operations(TRAIN, _trace_operations(model))
    if type(model).__name__ not in ("Functional", "Sequential"):
        # The layers, not the configuration that a subclass defines.
        functional = keras.Model(model.inputs, model.outputs, name=model.name)
        events.write_layers(TRAIN, functional.to_json())


def _trace_operations(model: keras.Model) -> Any:
    """Returns the `tf.compat.v1.GraphDef` of a call in training."""
    import tensorflow as tf

    inputs = keras.tree.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name),
        _input_structure(model),
    )
    takes_training = "training" in inspect.signature(model.call).parameters
    options = {"training": True} if takes_training else {}

    def forward(batch: Any) -> Any:
        with keras.StatelessScope():  # tracing changes no variable
            return model(batch, **options)

    graph = tf.function(forward).get_concrete_function(inputs).graph
    return _name_scopes_after_layers(graph.as_graph_def(), _list_layer_names(model))


def _list_layer_names(model: keras.Model) -> set[str]:
    names = {model.name}
    for layer in model.layers:
        names.add(layer.name)
        if isinstance(layer, keras.Model):
            names |= _list_layer_names(layer)
    return names


def _name_scopes_after_layers(graph: Any, names: set[str]) -> Any:
    """Gives the scopes of a graph the names of their layers.

    Keras opens the scope of a layer twice, and TensorFlow numbers the second one: in
    the graph, the layer `dense` is `dense_1`, which may be the name of another layer.
    """
    new_scopes: dict[str, str] = {}  # of each scope, both as whole paths
    taken: set[str] = set()
    for node in graph.node:
        parts = node.name.split("/")
        for depth in range(1, len(parts)):
            scope = "/".join(parts[:depth])
            if scope in new_scopes:
                continue
            above = new_scopes.get("/".join(parts[: depth - 1]), "")
            name, _, number = parts[depth - 1].rpartition("_")
            is_layer = name in names and number.isdecimal()
            # A layer that is called twice keeps its numbers.
            if not is_layer or posixpath.join(above, name) in taken:
                name = parts[depth - 1]
            new_scopes[scope] = posixpath.join(above, name)
            taken.add(new_scopes[scope])
    for node in graph.node:
        node.name = _rename_node(node.name, new_scopes)
        node.input[:] = [_rename_node(name, new_scopes) for name in node.input]
    return graph


def _rename_node(name: str, scopes: dict[str, str]) -> str:
    mark = "^" if name.startswith("^") else ""  # of a control dependency
    scope, slash, last = name[len(mark) :].rpartition("/")
    return mark + scopes.get(scope, scope) + slash + last


def _input_structure(model: keras.Model) -> Any:
    """Returns the inputs in the structure that the model takes."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    return model.input
