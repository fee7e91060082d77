"""The benchmark that judges other libraries: its splits, its judge, its table."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_images, small_loader

from keras_flowers.data.split_manifest import write_manifest

COUNTS = {"daisy": 12, "roses": 10, "tulips": 9}
PEER = """\
import csv, json, sys
command, photos, split, model, *rest = sys.argv[1:]
content = json.load(open(split))
if command == "train":
    assert rest == ["--epochs", "2", "--seed", "5"], rest
    open(model, "w").write("saved")
    print("epoch 1\\npeer 1.0")
else:
    table, *options = rest
    own = 0.9 if options == ["--tta", "2"] else 0.6
    names = content["class_names"]
    rows = [["path", *names]]
    for image in content["photos"]:
        if image["split"] == "test":
            of_class = image["path"].split("/")[0]
            other = (1 - own) / (len(names) - 1)
            values = [own if name == of_class else other for name in names]
            rows.append([photos + "/" + image["path"], *values])
    csv.writer(open(table, "w", newline="")).writerows(rows)
"""


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import peers

    return peers


def test_peers_get_the_split_that_train_makes(peers, tmp_path):
    loader = small_loader(
        tmp_path, COUNTS, validation_split=0.1, test_split=0.2, seed=5
    )
    peers.write_splits(str(tmp_path / "photos"), tmp_path, [5, 6])
    write_manifest(loader.load().split, tmp_path / "expected.json")
    expected = (tmp_path / "expected.json").read_bytes()
    assert (tmp_path / "5.json").read_bytes() == expected
    assert (tmp_path / "6.json").read_bytes() != expected


def test_the_judge_reads_rows_in_any_order_and_misses_none(peers, tmp_path):
    photos = draw_images(tmp_path / "photos", COUNTS)
    peers.write_splits(str(photos), tmp_path, [5])
    split, table = tmp_path / "5.json", tmp_path / "table.csv"
    paths, labels, names = peers.read_test_part(str(photos), split)
    assert [Path(path).parent.name for path in paths] == [names[n] for n in labels]
    probabilities = np.full((len(paths), 3), 0.1)
    probabilities[np.arange(len(paths)), labels] = 0.8
    wrong = (labels[0] + 1) % 3
    probabilities[0] = 0.02
    probabilities[0, wrong] = 0.96

    def write(count, scale=1.0):
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "class", *reversed(names)])
            for path, row in list(zip(paths, probabilities, strict=True))[:count][::-1]:
                writer.writerow([path, "", *(row[::-1] * scale)])

    write(len(paths))
    scores = peers.judge(table, str(photos), split)
    right = len(paths) - 1
    assert scores == {
        "images": len(paths),
        "accuracy": pytest.approx(right / len(paths)),
        "negative_log_likelihood": pytest.approx(
            -(right * np.log(0.8) + np.log(0.02)) / len(paths)
        ),
        "calibration_error": pytest.approx((right * 0.2 + 0.96) / len(paths)),
    }
    write(len(paths) - 1)
    with pytest.raises(SystemExit, match="must have each test image once"):
        peers.judge(table, str(photos), split)
    write(len(paths), scale=1.1)
    with pytest.raises(SystemExit, match="must be probabilities"):
        peers.judge(table, str(photos), split)


def test_a_peer_runs_once_and_has_a_row_for_each_prediction(
    peers, tmp_path, monkeypatch, capsys
):
    photos = draw_images(tmp_path / "photos", COUNTS)
    program, results = tmp_path / "peer.py", tmp_path / "results.jsonl"
    program.write_text(PEER)
    row = peers.Row("--epochs 2", ("", "--tta 2"), str(program), "a peer")
    monkeypatch.setattr(peers, "ROWS", {"peer": row})
    words = [str(photos), str(tmp_path), "--peer-python", sys.executable]
    arguments = ["peers.py", *words, "--results", str(results), "--seeds", "5"]
    monkeypatch.setattr(sys, "argv", arguments)
    peers.main()
    table = capsys.readouterr().out
    (line,) = map(json.loads, results.read_text().splitlines())
    assert (line["row"], line["seed"], line["versions"]) == ("peer", 5, "peer 1.0")
    assert 0 < line["cpu_seconds"] < 60 and 0 < line["seconds"] < 60
    low, high = peers.wilson_interval(*[line["answers"][""]["images"]] * 2)
    start = f"| 1.000 (1.000 to 1.000) | {low:.3f} to {high:.3f} |"
    plain, views = table.splitlines()[2:]
    assert plain.startswith(f"| a peer (1 of 3 seeds) {start} 0.511 | 0.400 |")
    assert views.startswith(f"| a peer, `--tta 2` (1 of 3 seeds) {start} 0.105 | 0.100")

    program.unlink()
    peers.main()  # Nothing is missing, so nothing runs.
    monkeypatch.setattr(sys, "argv", ["peers.py", "--table", *arguments[5:7]])
    peers.main()
    assert capsys.readouterr().out == table * 2
