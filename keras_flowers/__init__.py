"""Train an image classifier on a folder of images, in Keras.

Importing the package registers its Keras-serializable classes, so that
`keras.models.load_model` finds them.
"""

import importlib
import types

from keras_flowers.data.audit import Audit as Audit
from keras_flowers.data.audit import Finding as Finding
from keras_flowers.data.audit import scan as scan
from keras_flowers.data.dataset_loader import ImageDatasetLoader as ImageDatasetLoader
from keras_flowers.data.dataset_loader import ImageDatasets as ImageDatasets
from keras_flowers.data.sample import write_sample as write_sample
from keras_flowers.errors import InputError as InputError
from keras_flowers.evaluation.audit_report import (
    write_audit_report as write_audit_report,
)
from keras_flowers.evaluation.calibration import Calibration as Calibration
from keras_flowers.evaluation.calibration import CalibrationBin as CalibrationBin
from keras_flowers.evaluation.comparison import ChangedImage as ChangedImage
from keras_flowers.evaluation.comparison import Comparison as Comparison
from keras_flowers.evaluation.comparison import (
    compare_evaluations as compare_evaluations,
)
from keras_flowers.evaluation.cross_validation import CrossValidation as CrossValidation
from keras_flowers.evaluation.differences import Difference as Difference
from keras_flowers.evaluation.evaluate import Confusion as Confusion
from keras_flowers.evaluation.evaluate import Evaluation as Evaluation
from keras_flowers.evaluation.evaluate import Mistake as Mistake
from keras_flowers.evaluation.evaluate import evaluate as evaluate
from keras_flowers.evaluation.label_comparison import ChangedLabels as ChangedLabels
from keras_flowers.evaluation.label_comparison import (
    MultiLabelComparison as MultiLabelComparison,
)
from keras_flowers.evaluation.label_issues import (
    write_relabel_table as write_relabel_table,
)
from keras_flowers.evaluation.multi_label import LabelMistake as LabelMistake
from keras_flowers.evaluation.multi_label import LabelScores as LabelScores
from keras_flowers.evaluation.multi_label import (
    MultiLabelEvaluation as MultiLabelEvaluation,
)
from keras_flowers.evaluation.report import write_report as write_report
from keras_flowers.explanation.explain import Explanation as Explanation
from keras_flowers.explanation.explain import explain as explain
from keras_flowers.layers.augmentation import ImageAugmentation as ImageAugmentation
from keras_flowers.layers.preprocessing import (
    ImageNetPreprocessing as ImageNetPreprocessing,
)
from keras_flowers.layers.preprocessing import ResizeAndRescale as ResizeAndRescale
from keras_flowers.losses import MultiLabelCrossentropy as MultiLabelCrossentropy
from keras_flowers.metrics import ConfusionMatrix as ConfusionMatrix
from keras_flowers.metrics import MeanAveragePrecision as MeanAveragePrecision
from keras_flowers.models.backbone import Backbone as Backbone
from keras_flowers.models.backbone_presets import backbone_names as backbone_names
from keras_flowers.models.frozen_prediction import (
    PredictionDifference as PredictionDifference,
)
from keras_flowers.models.image_classifier import Classification as Classification
from keras_flowers.models.image_classifier import ImageClassifier as ImageClassifier
from keras_flowers.optimizers import Muon as Muon
from keras_flowers.registration import custom_object_scope as custom_object_scope
from keras_flowers.registration import custom_objects as custom_objects
from keras_flowers.scores import ClassScores as ClassScores
from keras_flowers.training.backbone_audit import (
    audit_with_backbone as audit_with_backbone,
)
from keras_flowers.training.config import FineTuning as FineTuning
from keras_flowers.training.config import TrainingConfig as TrainingConfig
from keras_flowers.training.feature_datasets import (
    PrecisionDifference as PrecisionDifference,
)
from keras_flowers.training.learning_rate import (
    LearningRateSearch as LearningRateSearch,
)
from keras_flowers.training.learning_rate import (
    find_learning_rate as find_learning_rate,
)
from keras_flowers.training.schedules import warm_up_and_cosine as warm_up_and_cosine
from keras_flowers.training.schedules import warm_up_and_hold as warm_up_and_hold
from keras_flowers.training.train import TrainingRun as TrainingRun
from keras_flowers.training.train import train as train
from keras_flowers.version import __version__ as __version__

Catalog = Audit  # the name of version 0.1


def __getattr__(name: str) -> types.ModuleType:
    """Imports `keras_flowers.tuning` when it is first used: KerasTuner is slow."""
    if name == "tuning":
        return importlib.import_module("keras_flowers.tuning")
    raise AttributeError(f"module 'keras_flowers' has no attribute {name!r}")
