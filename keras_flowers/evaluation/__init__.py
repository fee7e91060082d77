"""What a model gets right and wrong, and the report of a run."""
