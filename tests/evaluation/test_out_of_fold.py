import numpy as np
import pytest

from keras_flowers import InputError
from keras_flowers.evaluation.out_of_fold import out_of_fold_probabilities


def two_classes(count=60, seed=0):
    """Returns features of which two tell the classes, and labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    features = generator.gamma(2, 1, (count, 8)).astype(np.float32)
    features[:, :2] += 9 * labels[:, None]
    return features, labels


def test_a_wrong_label_is_improbable():
    features, labels = two_classes()
    given = labels.copy()
    given[[3, 10]] = 1 - given[[3, 10]]
    found = out_of_fold_probabilities(features, given)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    own = found[np.arange(len(given)), given]
    assert set(np.argsort(own)[:2]) == {3, 10}
    np.testing.assert_array_equal(found, out_of_fold_probabilities(features, given))
    assert (found != out_of_fold_probabilities(features, given, seed=1)).any()


def test_views_are_averaged_and_no_image_is_seen_in_training():
    features, labels = two_classes()
    found = out_of_fold_probabilities(np.stack([features, features]), labels)
    one = out_of_fold_probabilities(features, labels)
    np.testing.assert_allclose(found, one, atol=0.02)
    # Noise alone: whoever has seen an image recognizes it.
    noise = np.random.default_rng(1).normal(size=(2, 40, 200))
    labels = np.arange(40) % 2
    found = out_of_fold_probabilities(noise, labels)
    assert 0.2 < (found.argmax(axis=1) == labels).mean() < 0.8
    # Copies give each other away unless they stay together.
    copies = np.concatenate([noise[0], noise[0]])
    twice, groups = np.tile(labels, 2), np.tile(np.arange(40), 2)
    apart = out_of_fold_probabilities(copies, twice)
    together = out_of_fold_probabilities(copies, twice, groups=groups)
    assert (apart.argmax(axis=1) == twice).mean() > 0.8
    assert 0.2 < (together.argmax(axis=1) == twice).mean() < 0.8


def test_labels_that_cannot_be_split_are_refused():
    for labels in ([0, 0, 0, 0, 0, 0], [0, 1]):
        with pytest.raises(InputError, match="at least two classes"):
            out_of_fold_probabilities(np.ones((len(labels), 3)), np.array(labels))
