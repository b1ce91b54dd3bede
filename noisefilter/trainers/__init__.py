"""One published training with noisy labels a file: rows and labels in, classifier and verdict out."""
