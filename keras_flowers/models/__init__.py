"""Networks: from images to features and class probabilities."""
