"""The fused backend on a GPU: built, checked, timed and tuned by one command, ``python -m benchmarks.gpu``."""
