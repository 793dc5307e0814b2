"""``python -m benchmarks``: what there is."""

print(
    """python -m benchmarks.attention         how fast and how large, against dense attention and others
python -m benchmarks.few               from how many elements on it is faster, with default settings
python -m benchmarks.quality           how near to dense attention, for time and memory
python -m benchmarks.rankings          what each ranking captures of what could be
python -m benchmarks.graph             a graph of a million nodes
python -m benchmarks.levels            up to four million elements
python -m benchmarks.ragged            graphs and sequences of different sizes in one call
python -m benchmarks.context_parallel  what travels between processes, and what it costs
python -m benchmarks.cost              whether it costs what was expected
python -m benchmarks.gpu               the fused kernels on a GPU: built, checked, timed, tuned

--help lists the options of each."""
)
