"""Processes compute features in shares; here each is a thread with a socket."""

import socket
import threading

import keras
import numpy as np
import pytest
from keras.layers import Dense, Dropout

from keras_flowers.data.feature_cache import FeatureCache
from keras_flowers.training.devices import equalize_variables
from keras_flowers.training.feature_shares import compute_in_shares, take_share
from keras_flowers.training.processes import ProcessSettings, Team

BATCHES = [["a", "b"], ["c", "d"], ["b", "e"], ["f"], ["a"]]
WANTED = [set("abcdef"), set("ab")]
SIZE = 3


def row(view, name):
    return np.arange(SIZE, dtype=np.float32) + 100 * view + ord(name)


def test_processes_take_turns_with_the_batches():
    shares = [take_share(BATCHES, WANTED, number, 2) for number in range(2)]
    assert shares == [[set("abe"), set("ab")], [set("cdf"), set()]]
    assert take_share(BATCHES, WANTED, 0, 1) == WANTED
    # Batches without missing images are nobody's turn.
    few = [set("ef"), set()]
    assert take_share(BATCHES, few, 0, 2) == [{"e"}, set()]
    assert take_share(BATCHES, few, 1, 2) == [{"f"}, set()]


@pytest.mark.parametrize("disks", [["0", "1", "2"], ["0", "0", "0"], ["0", "1", "1"]])
def test_every_process_gets_what_one_has_computed(tmp_path, disks, monkeypatch):
    monkeypatch.setattr("keras_flowers.training.feature_shares._ROWS_AT_ONCE", 2)
    known = {"b": row(0, "b"), "f": row(0, "f")}
    FeatureCache(tmp_path / "1", "view 0", SIZE).add_missing(known)
    computed, found = [], {}

    def run(team, disk):
        keys = ("view 0", "view 1")
        caches = [FeatureCache(tmp_path / disk, key, SIZE) for key in keys]

        def compute(missing):
            for view, names in enumerate(missing):
                computed.extend((view, name) for name in names)
                if names:
                    caches[view].add_missing({name: row(view, name) for name in names})

        compute_in_shares(team, caches, WANTED, BATCHES, compute)
        found[team.number] = [
            cache.read(sorted(names))
            for cache, names in zip(caches, WANTED, strict=True)
        ]

    run_as_team(run, disks)
    expected = [
        np.stack([row(view, name) for name in sorted(names)])
        for view, names in enumerate(WANTED)
    ]
    assert len(found) == 3
    for arrays in found.values():
        for array, rows in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(array, rows)
    everywhere = {(view, name) for view, names in enumerate(WANTED) for name in names}
    has_known = "1" in disks
    skipped = {(0, "b"), (0, "f")} if has_known else set()
    assert sorted(computed) == sorted(everywhere - skipped)
    for disk in set(disks):
        cache = FeatureCache(tmp_path / disk, "view 0", SIZE)
        assert not cache.missing(sorted(WANTED[0]))


def test_process_0_decides_what_layers_have_drawn():
    models = [keras.Sequential([keras.Input((3,)), Dense(2), Dropout(0.5)])]
    models += [keras.models.clone_model(models[0]) for _ in range(2)]
    for model in models:
        model.compile("adam")
    before = [model.get_weights() for model in models]
    assert not np.array_equal(before[0][0], before[1][0])
    run_as_team(lambda team, model: equalize_variables(model, team), models)
    for model in models:
        for value, expected in zip(model.variables, before[0], strict=False):
            np.testing.assert_array_equal(value.numpy(), expected)
        seeds = [v.numpy().tolist() for v in model.variables if "seed" in v.path]
        assert seeds == [
            v.numpy().tolist() for v in models[0].variables if "seed" in v.path
        ]
        assert len(seeds) == 1


def run_as_team(function, arguments):
    """Calls a function in a thread for each team, with its argument; ends the teams."""
    teams = connect(len(arguments))
    threads = [
        threading.Thread(target=function, args=pair)
        for pair in zip(teams, arguments, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for team in reversed(teams):
        team.leave()


def connect(count):
    """Returns the teams of processes that are connected to the first."""
    pairs = {number: socket.socketpair() for number in range(1, count)}
    connections = [{n: one for n, (one, _) in pairs.items()}]
    connections += [{0: other} for _, other in pairs.values()]
    return [
        Team(ProcessSettings("localhost", 1, count, number), of_process)
        for number, of_process in enumerate(connections)
    ]
