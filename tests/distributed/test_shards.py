"""Blocks in a row are dealt to processes in equal parts."""

import itertools

import pytest

from gpa_nd.distributed.shards import blocks_of_each


@pytest.mark.parametrize(
    ("sizes", "processes", "expected"),
    [
        ([8, 1, 1], 3, [1, 1, 1]),  # 8 is beyond 10/3, and the next two are to have one each
        ([1, 1, 8], 3, [1, 1, 1]),  # 10/3: 2 is the nearest, but two blocks are to be left
        ([1, 8, 1], 3, [1, 1, 1]),
        ([8] * 5, 4, [1, 1, 1, 2]),  # 10: 8; 32/3: 8; 24/2: 8 is as near as 16; then 16
        ([8] * 8, 4, [2, 2, 2, 2]),
        ([8, 1, 1, 1, 1, 1, 1, 1, 1], 4, [1, 3, 2, 3]),  # 4: 8; of the other eight 8/3: 3; 5/2: 2 is as near as 3; 3
        ([3, 3, 1, 1], 2, [1, 3]),  # 4: 3 is nearer than 6
        ([1, 1, 1, 1, 8], 2, [4, 1]),  # 6: 4 is nearer than 12
        ([5, 5], 3, [1, 1, 0]),
        ([5], 4, [1, 0, 0, 0]),
        ([5, 2], 1, [2]),
        ([], 2, [0, 0]),
    ],
)
def test_blocks_are_dealt_as_worked_out_by_hand(sizes, processes, expected):
    assert blocks_of_each(sizes, processes) == expected


def test_no_process_is_empty_where_there_are_enough_blocks():
    for count, processes in itertools.product(range(1, 6), range(1, 6)):
        for sizes in itertools.product((1, 2, 9), repeat=count):
            counts = blocks_of_each(sizes, processes)
            assert sum(counts) == count
            assert sum(n > 0 for n in counts) == min(count, processes)
