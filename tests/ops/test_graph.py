import pytest
import torch

from gpa_nd import testing
from gpa_nd.ops import Downsampler, GraphDownsampler, GraphIndexUpsampler
from gpa_nd.partition import Partition

PATH = torch.tensor([[0, 1, 2], [1, 2, 3]])


def test_mean_over_labelled_nodes():
    x = torch.tensor([[[1.0], [2.0], [3.0], [8.0]]])
    assert GraphDownsampler(torch.tensor([1, 0, 1, 0]))(x).flatten().tolist() == [5.0, 2.0]


def test_upsampled_indices_are_the_nodes_of_a_group():
    up = GraphDownsampler(torch.tensor([1, 0, 1, 1])).upsampler()
    assert isinstance(up, GraphIndexUpsampler)
    assert up(torch.tensor([[0], [1], [-1]]), (4,)).tolist() == [[1, -1, -1], [0, 2, 3], [-1, -1, -1]]


def test_groups_from_edges_hold_at_most_factor_nodes():
    down = GraphDownsampler.from_edges(PATH, 6, factor=2)
    testing.assert_partition(down.groups((6,)), 6)
    assert down.groups((6,)).largest == 2
    assert down.labels[4] != down.labels[5]  # nodes without edges stay alone


def test_weights_decide_who_goes_with_whom():
    down = GraphDownsampler.from_edges(PATH, 4, factor=2, edge_weight=torch.tensor([1.0, 9.0, 1.0]))
    assert down.labels[1] == down.labels[2]


def test_a_geometry_needs_one_method_only():
    class EvenAndOdd(Downsampler):
        def groups(self, shape):
            return Partition.from_labels(torch.arange(shape[0]) % 2)

    down = EvenAndOdd()
    assert down(torch.arange(4.0)[:, None]).tolist() == [[1.0], [2.0]]
    assert down.coarse_shape((4,)) == (2,)
    assert down.upsampler()(torch.tensor([1]), (5,)).tolist() == [1, 3, -1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GraphDownsampler(torch.tensor([0, 2])), ValueError, "labels: "),
        (lambda: GraphDownsampler(torch.tensor([0, 1])).groups((3,)), ValueError, r"labels: .*\(2,\), got .*\(3,\)"),
        (
            lambda: GraphDownsampler(torch.tensor([0, 1]))(torch.zeros(3, 1)),
            ValueError,
            r"labels: .*\(2,\), got .*\(3,\)",
        ),
        (lambda: GraphDownsampler.from_edges(PATH, 3, 2), ValueError, "edge_index: "),
        (lambda: GraphDownsampler.from_edges(PATH, 4, 0), ValueError, "factor: "),
        (lambda: GraphDownsampler.from_edges(PATH.float(), 4, 2), TypeError, "edge_index: "),
        (lambda: GraphIndexUpsampler(torch.tensor([0, 1]))(torch.tensor([0]), (2, 1)), ValueError, "labels: "),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
