"""How many workers a search gets, and what each of them may use."""

import os

import keras
import pytest
from helpers import small_loader, tiny_network
from keras_flowers.tuning import ImageClassifierHyperModel, worker_choice
from keras_flowers.tuning.worker_choice import choose_workers, visible_gpus
from keras_flowers.tuning.workers import Share
from tuning_helpers import small_space

from keras_flowers import Backbone, ImageDatasetLoader


@pytest.fixture
def machine(monkeypatch):
    """Pretends that this machine has so many cores and GPUs, and so much memory."""

    def pretend(cores=8, gpus=0, gigabytes=64):
        for name, value in (
            ("processors", cores),
            ("_count_gpus", gpus),
            ("_memory_bytes", gigabytes * 2**30),
        ):
            monkeypatch.setattr(worker_choice, name, lambda value=value: value)

    pretend()
    return pretend


def test_workers_follow_from_what_trials_do_and_what_the_machine_has(tmp_path, machine):
    lesson = ImageClassifierHyperModel(ImageDatasetLoader(tmp_path))
    small = small_space(tmp_path)
    backbone = Backbone(tiny_network())
    loader = small_loader(tmp_path)
    heads = ImageClassifierHyperModel(loader, backbone=backbone)
    wide = ImageClassifierHyperModel(loader, backbone=backbone, units=(64, 2048))
    images = ImageClassifierHyperModel(loader, backbone=backbone, augmentation=True)
    for space, count, reason in (
        (lesson, 1, "works on 1,611 MB, so the memory is the limit"),
        (small, 8, "keeps only one of 8 cores busy"),
        (heads, 8, "cached features keeps only one of 8 cores busy"),
        (wide, 2, "keeps up to 4 of 8 cores busy"),
        (images, 2, "keeps up to 4 of 8 cores busy"),
    ):
        choice = choose_workers(space, trials=100)
        assert choice.count == count
        assert reason in str(choice)
        assert str(choice).startswith(f"{count} worker{'s: ' if count > 1 else ': '}")
    assert choose_workers(heads, trials=3).count == 3
    machine(cores=2)
    choice = choose_workers(images, trials=100)
    assert str(choice) == "1 worker: a network with a backbone keeps all 2 cores busy"
    machine(gigabytes=3)
    assert choose_workers(heads, trials=100).count == 3
    assert "1 GiB of memory" in choose_workers(heads, trials=100).reason
    assert choose_workers(lesson, trials=100).count == 1
    machine(gpus=4)
    assert str(choose_workers(lesson, 100)) == "4 workers: one for each of 4 GPUs"
    assert choose_workers(lesson, trials=1).count == 1


def test_each_worker_has_its_gpu_or_its_share_of_the_cores(machine, monkeypatch):
    for name in ("TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TF_CPU_ALLOCATOR_USE_BFC", "true")
    machine(gpus=2)
    for listed, names in (("", ["0", "1"]), ("5, GPU-7,9", ["5", "GPU-7"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
        assert visible_gpus() == names
    pinned = []
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda pid, cores: pinned.append(cores)
    )
    for index in range(3):
        Share(index, 3, ("5", "GPU-7")).apply()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ("5", "GPU-7", "5")[index]
    assert pinned == [[0, 1], [2, 3], [4, 5]]
    Share(9, 16).apply(one_thread=True)
    assert pinned[-1] == [1]
    Share().apply()
    assert len(pinned) == 4, "a single worker has the whole machine"
