import numpy as np

from keras_flowers.data.audit import Audit
from keras_flowers.data.image_files import ImageRecord
from keras_flowers.evaluation.odd_images import find_odd_images


def test_odd_images_are_found_and_small_ones_are_not_blurred():
    generator = np.random.default_rng(0)
    count, side = 14, 64
    pixels = generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    pixels[1] //= 8
    pixels[2] = 255 - pixels[2] // 20
    ramp = np.linspace(5, 95, side)
    pixels[3] = (ramp[:, None] + ramp)[..., None]
    pixels[4] = 128
    sizes = [(80, 60)] * count
    sizes[5], sizes[6], sizes[7] = (400, 40), (4000, 3000), (16, 12)
    sizes[8] = (96, 72)
    audit = Audit(
        "photos",
        ("a",),
        tuple(
            ImageRecord(f"a/{i:02}.png", 1, 1, str(i), *size, "PNG", "", None, None)
            for i, size in enumerate(sizes)
        ),
        (),
    )
    done = []
    found = find_odd_images(
        audit, [pixels[:8], pixels[8:]], lambda *step: done.append(step)
    )
    kinds = {}
    for finding in found:
        kinds.setdefault(finding.kind, []).append(int(finding.paths[0][2:4]))
        assert finding.exclude == finding.paths
        assert 0 <= finding.details["score"] <= 1
    assert kinds["dark"] == [1]
    assert kinds["bright"] == [2]
    assert kinds["blurred"] == [3]
    assert kinds["low_information"][0] == 4
    assert kinds["odd_shape"] == [5]
    assert set(kinds["odd_size"]) == {6, 7}
    assert done[-1] == ("look", count, count) and len(done) == count
