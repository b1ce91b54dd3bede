"""One published method a file: signals in, verdict out."""
