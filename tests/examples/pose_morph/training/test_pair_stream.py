"""The stream of batches: every pair once per epoch, tau, mirroring, and taking it up again."""

import pytest
import torch
from PIL import Image

from examples.pose_morph.data.patn import read_patn
from examples.pose_morph.errors import UserError
from examples.pose_morph.training.pair_stream import PairStream, to_image

SIZE = (64, 40)


def test_every_pair_comes_once_per_epoch(people):
    data = read_patn(people, "train", SIZE)
    for number, name in enumerate(data.names):  # the picture's number as its colour
        Image.new("RGB", (40, 64), (number,) * 3).save(people / "train" / name)
    stream = PairStream(data, 4, 0, mirrored=False, tau=0.15)
    batches = [stream.pairs() for _ in range(3)]  # two epochs of six pairs
    numbers = [
        torch.cat([(picture[:, 0, 0, 0] + 1) * 127.5 for picture in pictures]).round().int()
        for pictures in ([batch.source for batch in batches], [batch.target for batch in batches])
    ]
    seen = [tuple(pair) for pair in torch.stack(numbers, dim=1).tolist()]
    everything = sorted(tuple(pair) for pair in data.pairs.tolist())
    assert sorted(seen[:6]) == everything
    assert sorted(seen[6:]) == everything
    assert seen[:6] != seen[6:]


def test_a_distorted_batch_shows_one_picture_twice(people):
    data = read_patn(people, "train", SIZE)
    still = PairStream(data, 3, 0, mirrored=True, tau=0.0).distorted()
    torch.testing.assert_close(still.source, still.target, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(still.source_keypoints, still.target_keypoints, atol=1e-4, rtol=1e-5)
    moved = PairStream(data, 3, 0, mirrored=True, tau=0.15).distorted()
    assert torch.equal(moved.source, still.source)
    assert (moved.source_keypoints - moved.target_keypoints).abs().max() > 0.5


def test_mirroring_takes_whole_pairs_half_of_the_time(people):
    data = read_patn(people, "train", SIZE)
    plain, mirrored = (PairStream(data, 6, 0, mirrored=m, tau=0.15) for m in (False, True))
    flips = []
    for _ in range(20):
        a, b = plain.pairs(), mirrored.pairs()
        plain.generator.set_state(mirrored.generator.get_state())
        for row in range(6):
            turned = [torch.equal(y[row], x[row].flip(-1)) for x, y in ((a.source, b.source), (a.target, b.target))]
            assert turned[0] == turned[1]
            if not turned[0]:
                assert torch.equal(a.source_keypoints[row], b.source_keypoints[row])
            flips.append(turned[0])
    assert 0.3 < sum(flips) / len(flips) < 0.7


def test_a_stream_goes_on_where_its_state_was_taken(people):
    data = read_patn(people, "train", SIZE)
    stream, other = (PairStream(data, 4, seed, mirrored=True, tau=0.15) for seed in (0, 1))
    stream.pairs()
    stream.distorted()
    other.load_state_dict(stream.state_dict())
    for _ in range(3):
        for ours, theirs in zip(stream.distorted(), other.distorted(), strict=True):
            assert torch.equal(ours, theirs)


def test_a_stream_refuses_the_state_of_other_data(people, tmp_path):
    state = PairStream(read_patn(people, "test", SIZE), 2, 0, mirrored=True, tau=0.15)
    state.pairs()
    with pytest.raises(UserError, match="expected the 4 pairs that the run was started with, got 6"):
        PairStream(read_patn(people, "train", SIZE), 2, 0, mirrored=True, tau=0.15).load_state_dict(state.state_dict())


def test_bytes_become_minus_one_to_one():
    assert to_image(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]
