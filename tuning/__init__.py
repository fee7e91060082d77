"""Searching for a better model with KerasTuner."""

from keras_flowers.tuning.hypermodel import (
    ImageClassifierHyperModel as ImageClassifierHyperModel,
)
from keras_flowers.tuning.records import ExecutionRecord as ExecutionRecord
from keras_flowers.tuning.records import TrialRecord as TrialRecord
from keras_flowers.tuning.results import SearchResult as SearchResult
from keras_flowers.tuning.search import search as search
from keras_flowers.tuning.supervisor import SearchError as SearchError
