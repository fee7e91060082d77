import pytest
from keras_flowers_cli.options import StrengthWord, spell_out_strengths


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train --augmentation photos", "train --augmentation=yes photos"),
        ("train photos --augmentation", "train photos --augmentation=yes"),
        ("train --augmentation --epochs 3", "train --augmentation=yes --epochs 3"),
        ("train --augmentation light photos", None),
        ("train --augmentation=strong", None),
        ("train --no-augmentation photos", "train --augmentation=no photos"),
        ("predict -- --augmentation", None),
        ("train --fine-tune-augmentation none", None),
    ],
)
def test_a_strength_may_be_a_switch(line, expected):
    assert " ".join(spell_out_strengths(line.split())) == (expected or line)


def test_the_words_of_a_switch_are_bools():
    kind = StrengthWord(("none", "light"))
    words = {word: kind.convert(word, None, None) for word in kind.choices}
    assert words == {"none": False, "light": "light", "yes": True, "no": False}
