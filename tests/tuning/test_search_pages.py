"""The real TensorBoard in a real browser compares the trials of a search."""

import contextlib
import re
import subprocess
import sys

from browser import open_page, require_browser, wait_for_text
from keras_flowers.tuning import search
from tuning_helpers import small_space


@contextlib.contextmanager
def running_tensorboard(folder):
    """Starts TensorBoard on any free port; gives its address."""
    options = ("--host", "127.0.0.1", "--port", "0", "--logdir", str(folder))
    with subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            for line in process.stderr:
                if found := re.search(r"http://\S+", line):
                    yield found[0].rstrip("/")
                    break
        finally:
            process.kill()


def test_the_hparams_tab_compares_the_trials(tmp_path):
    require_browser()
    hypermodel = small_space(tmp_path, layers=1, units=(8, 16, 8), epochs=(1, 2))
    result = search(hypermodel, tmp_path / "search", strategy="grid", trials=3)
    logs = tmp_path / "search" / "tensorboard"
    with (
        running_tensorboard(logs) as address,
        open_page(f"{address}/?darkMode=false#hparams", tmp_path) as driver,
    ):
        metrics = [trial.executions[0].metrics for trial in result.trials]
        text = wait_for_text(
            driver,
            *(f"{trial.id}/execution_0" for trial in result.trials),
            # As JavaScript's `toPrecision(5)` writes them.
            *(f"{values['val_loss']:#.5g}" for values in metrics),
        )
        for name in ("units_1", "epochs", "batch_size"):
            assert name in text
        driver.save_screenshot(str(tmp_path / "hparams.png"))
