"""How long work tells its caller how far it is."""

from collections.abc import Callable

# Called as `progress(step, done, total)` in the calling thread. `step` names what is
# going on, such as "download" (bytes), "extract" (files), "decode" (images) or
# "features" (images); `total` is None where it is not known.
Progress = Callable[[str, int, int | None], None]
