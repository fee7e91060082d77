"""Takes a trained model elsewhere: other runtimes, proven to give equal answers."""

from keras_flowers_runtime.exported import ExportedClassifier as ExportedClassifier
from keras_flowers_runtime.exported import load_exported as load_exported

from keras_flowers.export.export import export_model as export_model
from keras_flowers.export.model_card import write_card as write_card
from keras_flowers.export.proof import Proof as Proof
from keras_flowers.export.proof import ProofError as ProofError
