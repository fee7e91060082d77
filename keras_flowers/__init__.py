"""Train an image classifier on a folder of photos, in Keras.

Importing the package registers its Keras-serializable classes, so that
`keras.models.load_model` finds them.
"""

from keras_flowers.augmentation import ImageAugmentation as ImageAugmentation
from keras_flowers.backbone import Backbone as Backbone
from keras_flowers.backbone_catalog import backbone_names as backbone_names
from keras_flowers.calibration import Calibration as Calibration
from keras_flowers.calibration import CalibrationBin as CalibrationBin
from keras_flowers.catalog import Catalog as Catalog
from keras_flowers.catalog import Finding as Finding
from keras_flowers.catalog import scan as scan
from keras_flowers.confusion_matrix import ConfusionMatrix as ConfusionMatrix
from keras_flowers.dataset_loader import ImageDatasetLoader as ImageDatasetLoader
from keras_flowers.dataset_loader import ImageDatasets as ImageDatasets
from keras_flowers.errors import InputError as InputError
from keras_flowers.evaluation import ClassScores as ClassScores
from keras_flowers.evaluation import Confusion as Confusion
from keras_flowers.evaluation import Evaluation as Evaluation
from keras_flowers.evaluation import Mistake as Mistake
from keras_flowers.evaluation import evaluate as evaluate
from keras_flowers.image_classifier import Classification as Classification
from keras_flowers.image_classifier import ImageClassifier as ImageClassifier
from keras_flowers.preprocessing import ImageNetPreprocessing as ImageNetPreprocessing
from keras_flowers.preprocessing import ResizeAndRescale as ResizeAndRescale
from keras_flowers.registration import custom_object_scope as custom_object_scope
from keras_flowers.registration import custom_objects as custom_objects
from keras_flowers.report import write_report as write_report
from keras_flowers.sample import write_sample as write_sample
from keras_flowers.schedules import warm_up_and_cosine as warm_up_and_cosine
from keras_flowers.training import TrainingRun as TrainingRun
from keras_flowers.training import train as train
from keras_flowers.training_config import FineTuning as FineTuning
from keras_flowers.training_config import TrainingConfig as TrainingConfig
from keras_flowers.version import __version__ as __version__
