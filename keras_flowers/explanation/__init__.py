"""Which parts of an image decide its class."""
