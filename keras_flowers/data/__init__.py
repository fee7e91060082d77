"""Where images come from, what is in them, and how they reach `fit`."""
