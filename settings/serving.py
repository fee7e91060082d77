"""Settings of the command that serves a model."""

from keras_flowers_settings.kinds import Flag, Integer, Text
from keras_flowers_settings.setting import Setting

HOST = Setting(
    name="host",
    kind=Text(),
    meaning="Name or address under which the server answers; `0.0.0.0` for the whole "
    "network, which needs `--token` or `--insecure`",
    commands=("serve",),
    default="127.0.0.1",
)
PORT = Setting(
    name="port",
    kind=Integer(0, 65535),
    meaning="Port of the server; 0 for any free one",
    commands=("serve",),
    default=8501,
)
TOKEN = Setting(
    name="token",
    kind=Text("TOKEN"),
    meaning="Answer only requests with this token of at least 8 characters. The "
    "environment variable `KERAS_FLOWERS_TOKEN` does the same and does not appear in "
    "the list of processes",
    commands=("serve",),
)
INSECURE = Setting(
    name="insecure",
    kind=Flag(),
    meaning="Let everybody who reaches the server use it",
    commands=("serve",),
    default=False,
)

SETTINGS = (HOST, PORT, TOKEN, INSECURE)
