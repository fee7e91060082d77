"""How soon the command line answers where it needs no Keras.

    python benchmarks/cli_start.py

Prints the median time of each command, start of Python included.
"""

import subprocess

from common import KERAS_FLOWERS, machine, seconds


def main() -> None:
    """Prints the median time of each answer."""
    print(machine())
    for arguments in (
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["train", "photos", "--epochs", "0"],
        ["fly"],
    ):

        def answer(arguments: list[str] = arguments) -> None:
            subprocess.run(
                [KERAS_FLOWERS, *arguments], capture_output=True, check=False
            )

        print(f"keras-flowers {' '.join(arguments):24} {seconds(answer):.2f} s")


if __name__ == "__main__":
    main()
