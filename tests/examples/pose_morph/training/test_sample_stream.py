"""The stream of samples: each follows from the seed and its number, every pair comes once per epoch."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from examples.pose_morph.data.pose_data import DataError, PoseData
from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.errors import UserError
from examples.pose_morph.training.process_group import ProcessGroup, share_of
from examples.pose_morph.training.sample_stream import SampleBatch, SampleStream, load_batches

SIZE = (64, 40)


def colour_by_number(people) -> PoseData:
    """The people, each picture with its number as its colour."""
    data = read_data(people, "train", SIZE)
    for number, name in enumerate(data.names):
        Image.new("RGB", (40, 64), (number,) * 3).save(people / "train" / name)
    return data


def stream_of(data: PoseData, seed: int = 0, *, mirrored: bool = False, tau: float = 0.15) -> SampleStream:
    return SampleStream(data, seed, mirrored=mirrored, tau=tau)


def load(stream: SampleStream, *numbers: range, workers: int = 0) -> list[SampleBatch]:
    return list(load_batches(stream, numbers, workers=workers))


def tensors_of(batches: list[SampleBatch]) -> list[torch.Tensor]:
    return [tensor for batch in batches for tensor in (*batch.pairs, batch.tau)]


def assert_same(one: list[SampleBatch], other: list[SampleBatch]) -> None:
    for a, b in zip(tensors_of(one), tensors_of(other), strict=True):
        assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))


def test_every_pair_comes_once_per_epoch(people):
    data = colour_by_number(people)
    stream = stream_of(data)
    samples = [stream[n] for n in range(12)]  # two epochs of six pairs
    seen = [(int(sample.source.image[0, 0, 0]), int(sample.target.image[0, 0, 0])) for sample in samples]
    everything = sorted(tuple(pair) for pair in data.pairs.tolist())
    assert sorted(seen[:6]) == everything
    assert sorted(seen[6:]) == everything
    assert seen[:6] != seen[6:]


def test_a_sample_depends_on_its_number_and_the_seed_alone(people):
    data = read_data(people, "train", SIZE)
    stream, again, other = stream_of(data, mirrored=True), stream_of(data, mirrored=True), stream_of(data, 1)
    forwards = {n: stream[n] for n in range(20)}
    for n in reversed(range(20)):
        sample = again[n]
        assert torch.equal(sample.source.image, forwards[n].source.image)
        assert torch.equal(sample.target.keypoints, forwards[n].target.keypoints)
        assert torch.equal(sample.tau, forwards[n].tau)
        assert not torch.equal(sample.tau, other[n].tau)
    taus = torch.stack([sample.tau for sample in forwards.values()])
    assert len(taus.unique(dim=0)) == 20
    assert (taus - torch.eye(2, 3)).abs().max() <= 0.15


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_workers_change_nothing(people):
    stream = stream_of(read_data(people, "train", SIZE), mirrored=True)
    numbers = [range(4 * step, 4 * step + 4) for step in range(5)]
    state = torch.get_rng_state()
    assert_same(load(stream, *numbers), load(stream, *numbers, workers=2))
    assert torch.equal(state, torch.get_rng_state())


def test_the_parts_of_the_processes_make_the_batch_of_one(people):
    stream = stream_of(read_data(people, "train", SIZE), mirrored=True)
    whole = load(stream, share_of(3, 4, ProcessGroup(0, 1, torch.device("cpu"))))
    halves = load(stream, *(share_of(3, 4, ProcessGroup(rank, 2, torch.device("cpu"))) for rank in range(2)))
    for all_, first, second in zip(*(tensors_of([batch]) for batch in (*whole, *halves)), strict=True):
        assert torch.equal(all_, torch.cat([first, second]))


def test_mirroring_takes_whole_pairs_half_of_the_time(people):
    data = read_data(people, "train", SIZE)
    plain, mirrored = (stream_of(data, mirrored=m) for m in (False, True))
    flips = []
    for n in range(100):
        a, b = plain[n], mirrored[n]
        turned = [torch.equal(y.image, x.image.flip(-1)) for x, y in ((a.source, b.source), (a.target, b.target))]
        assert turned[0] == turned[1]
        if turned[0]:  # the right shoulder is now the left one, on the other side
            torch.testing.assert_close(b.source.keypoints[5, 0], SIZE[1] - 1 - a.source.keypoints[2, 0])
        else:
            assert torch.equal(a.source.keypoints, b.source.keypoints)
        flips.append(turned[0])
    assert 0.3 < sum(flips) / len(flips) < 0.7


def test_unpaired_data_takes_the_pose_of_any_other_picture(people):
    data = colour_by_number(people)
    numbers = torch.arange(len(data))
    unpaired = stream_of(replace(data, pairs=torch.stack([numbers, numbers], dim=1), paired=False))
    seen = set()
    for n in range(200):
        sample = unpaired[n]
        source, other = (int(portrait.image[0, 0, 0]) for portrait in (sample.source, sample.target))
        assert torch.equal(sample.target.keypoints, data[other].keypoints)
        seen.add((source, other))
    assert seen == {(a, b) for a in range(6) for b in range(6) if a != b}


def test_unpaired_data_of_one_picture_is_refused(people):
    data = read_data(people, "train", SIZE)
    one = replace(data, names=data.names[:1], pairs=torch.zeros(1, 2, dtype=torch.int64), paired=False)
    with pytest.raises(UserError, match="expected at least two pictures"):
        stream_of(one)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_comes_out_as_the_error_that_names_it(people, workers):
    data = read_data(people, "train", SIZE)
    name = data.names[3]
    content = (people / "train" / name).read_bytes()
    (people / "train" / name).write_bytes(content[: len(content) // 2])
    results = load(stream_of(data), *(range(n, n + 1) for n in range(6)), workers=workers)
    errors = [result for result in results if not isinstance(result, SampleBatch)]
    assert len(errors) == 2  # the picture is in two of the six pairs
    assert all(isinstance(error, DataError) and name in str(error) for error in errors)
