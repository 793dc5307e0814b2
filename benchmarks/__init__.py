"""Side-by-side measurements: they print tables and never assert a time."""
