"""Eq. 2 in the script: which pictures and poses every term is made of, and which weights it moves."""

from dataclasses import replace

import pytest
import torch

from examples.pose_morph import presets, train
from examples.pose_morph.data.pose import heatmaps
from examples.pose_morph.data.profiles import read_data
from examples.pose_morph.networks.discriminator import Discriminator
from examples.pose_morph.networks.generator import Generator, draw_pose
from examples.pose_morph.training import final_scores
from examples.pose_morph.training.batch import distorted, draw_poses, take_pairs
from examples.pose_morph.training.checkpoint import load_checkpoint
from examples.pose_morph.training.sample_stream import SampleBatch, SampleStream, load_batches
from tests.examples.pose_morph.test_train import EQUATION_2, TINY, lines_of, read_unpaired, run


@pytest.fixture(autouse=True)
def _equation_2(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "demo", EQUATION_2)


def first_samples(people, read=read_data) -> SampleBatch:
    """The samples of a run's first step."""
    stream = SampleStream(read(people, "train", TINY.model.size), 0, mirrored=True, tau=0.15)
    return next(load_batches(stream, [range(2)], workers=0))


@pytest.mark.parametrize("paired", [True, False])
def test_l_per_compares_the_pair_and_l_self_the_picture_with_its_tau(people, tmp_path, monkeypatch, paired):
    """L_per: G(M1, B1, B2) and M2. L_self: G(M1, B1, tau(B1)) and tau(M1). Unpaired data has the second alone."""
    drawn, compared = [], []
    forward, loss = Generator.forward, train.reconstruction_loss

    def draw(self, image, source_pose, target_pose):
        result = forward(self, image, source_pose, target_pose)
        drawn.append((image, source_pose, target_pose, result))
        return result

    def compare(result, truth, perceptual, **weights):
        compared.append((result.detach(), truth))
        return loss(result, truth, perceptual, **weights)

    monkeypatch.setattr(Generator, "forward", draw)
    monkeypatch.setattr(train, "reconstruction_loss", compare)
    if not paired:
        monkeypatch.setattr(train, "read_data", read_unpaired)
    run(people, tmp_path / "run", max_steps=1, eval_pairs=1)

    batch, tau = first_samples(people, read_data if paired else read_unpaired)
    moved = distorted(batch, tau)
    for (image, *poses, _), expected in zip(drawn, (batch, moved), strict=False):
        assert torch.equal(image, batch.source)
        for pose, wanted in zip(poses, draw_poses(expected, TINY.model), strict=True):
            assert torch.equal(pose.heatmaps, wanted.heatmaps)
            assert torch.equal(pose.coordinates, wanted.coordinates)
    pairs, taus = (result for *_, result in drawn[:2])
    wanted = [(pairs, batch.target), (taus, moved.target)] if paired else [(taus, moved.target)]
    assert len(compared) == len(wanted)
    for (result, truth), (made, true) in zip(compared, wanted, strict=True):
        assert torch.equal(result, made)
        assert torch.equal(truth, true)


@pytest.mark.parametrize("paired", [True, False])
def test_who_sees_what(people, tmp_path, monkeypatch, paired):
    """Real for D is (M1, B1), fake (G, B2); scores are the averaged model's, on people of test/."""
    judged, logits, weighed, scored = [], [], [], []
    loss, forward, score = train.discriminator_gan_loss, Discriminator.forward, final_scores.score_pairs

    def judge(self, image, maps):
        judged.append((image.detach().clone(), maps.clone()))
        logits.append(forward(self, image, maps))
        return logits[-1]

    def weigh(real, fake):
        weighed.append((real, fake))
        return loss(real, fake)

    def note(batches, morph, perceptual, **regions):
        batches = list(batches)
        scored.append((batches, [morph(batch) for batch in batches]))
        return score(iter(batches), morph, perceptual, **regions)

    monkeypatch.setattr(Discriminator, "forward", judge)
    monkeypatch.setattr(train, "discriminator_gan_loss", weigh)
    monkeypatch.setattr(final_scores, "score_pairs", note)
    if not paired:
        monkeypatch.setattr(train, "read_data", read_unpaired)
    run(people, tmp_path / "run", max_steps=1)

    size = TINY.model.size
    read = read_data if paired else read_unpaired
    batch = first_samples(people, read).pairs
    assert all(len(image) == TINY.training.batch_size for image, _ in judged)
    for_generator, real, fake, penalised = judged
    assert torch.equal(real[0], batch.source)
    assert torch.equal(real[1], heatmaps(batch.source_keypoints, size))
    assert torch.equal(fake[1], heatmaps(batch.target_keypoints, size))
    assert torch.equal(fake[0], for_generator[0])
    assert torch.equal(penalised[0], batch.source)
    assert torch.equal(penalised[1], heatmaps(batch.source_keypoints, size))
    assert all(map(torch.equal, weighed[0], logits[1:3]))

    held_out = read(people, "test", size)
    batches, results = scored[0]
    expected = take_pairs(held_out, torch.arange(len(held_out.pairs)))
    targets = torch.cat([batch.target for batch in batches])
    assert torch.equal(torch.cat([batch.source for batch in batches]), expected.source)
    assert torch.equal(targets, expected.target) == paired
    assert not torch.equal(targets, expected.source)
    averaged = Generator(TINY.model)
    saved = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    weights = {name.removeprefix("module."): value for name, value in saved["ema"].items() if name != "n_averaged"}
    averaged.load_state_dict(weights)
    poses = [draw_pose(points, TINY.model) for points in (batches[0].source_keypoints, batches[0].target_keypoints)]
    with torch.no_grad():
        torch.testing.assert_close(results[0], averaged(batches[0].source, *poses), rtol=0, atol=1e-5)


def test_l_gan_enters_the_generators_gradient_with_its_weight(people, tmp_path, monkeypatch):
    gradients = []
    for weight in (0.0, 1.0, 3.0):
        changed = replace(EQUATION_2, training=replace(EQUATION_2.training, gan_weight=weight))
        monkeypatch.setitem(presets.PRESETS, "demo", changed)
        out = tmp_path / str(weight)
        run(people, out, max_steps=1, eval_pairs=1)
        moments = load_checkpoint(out / "checkpoint.pt")["optimizer_g"]["state"].values()
        gradients.append(torch.cat([moment["exp_avg"].flatten() for moment in moments]))
    without, once, thrice = gradients
    assert (once - without).abs().max() > 0
    torch.testing.assert_close(thrice - without, 3 * (once - without), rtol=1e-3, atol=1e-5)


def test_r1_comes_every_so_many_steps_of_the_discriminator_and_weighs_as_many_times_as_much(
    people, tmp_path, monkeypatch
):
    """A penalty whose gradient is one everywhere shows its weight in what Adam sees: beta 0 keeps the last gradient."""

    def penalty(discriminator, image, maps):
        return sum(parameter.sum() for parameter in discriminator.parameters())

    changed = replace(EQUATION_2, training=replace(EQUATION_2.training, r1_every=3, r1_gamma=0.5))
    monkeypatch.setitem(presets.PRESETS, "demo", changed)
    monkeypatch.setattr(train, "r1_penalty", penalty)
    monkeypatch.setattr(train, "discriminator_gan_loss", lambda real, fake: 0 * (real + fake).sum())
    run(people, tmp_path / "one", max_steps=1, eval_pairs=1)
    moments = load_checkpoint(tmp_path / "one" / "checkpoint.pt")["optimizer_d"]["state"].values()
    for moment in moments:
        torch.testing.assert_close(moment["exp_avg"], torch.full_like(moment["exp_avg"], 3 * 0.5))
    run(people, tmp_path / "six", eval_pairs=1)
    assert [line["step"] for line in lines_of(tmp_path / "six") if "r1" in line] == [1, 4]


def test_a_step_moves_both_networks_and_the_average_follows(people, tmp_path):
    """The average begins as the first weights after a step, and then keeps ``ema_decay`` of itself."""
    states = []
    for steps in (1, 2):
        run(people, tmp_path / "run", max_steps=steps, eval_pairs=1, resume=steps > 1)
        states.append(load_checkpoint(tmp_path / "run" / "checkpoint.pt"))
    one, two = states
    for network in ("generator", "discriminator"):
        assert any(not torch.equal(one[network][name], two[network][name]) for name in one[network])
    decay = EQUATION_2.training.ema_decay
    for name, first in one["generator"].items():
        assert torch.equal(one["ema"][f"module.{name}"], first)
        expected = decay * first + (1 - decay) * two["generator"][name]
        torch.testing.assert_close(two["ema"][f"module.{name}"], expected)


def test_the_sample_grid_is_drawn_by_the_average(people, tmp_path, monkeypatch):
    changed = replace(EQUATION_2, training=replace(EQUATION_2.training, ema_decay=0.5))
    monkeypatch.setitem(presets.PRESETS, "demo", changed)
    shown = []
    save = train.save_samples
    monkeypatch.setattr(
        train,
        "save_samples",
        lambda *given, paired: (shown.append((given[1], given[2])), save(*given, paired=paired)),
    )
    run(people, tmp_path / "run", max_steps=2, eval_pairs=1)
    saved = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    batch, result = shown[-1]
    results = []
    for weights in (saved["generator"], {name.removeprefix("module."): x for name, x in saved["ema"].items()}):
        generator = Generator(TINY.model)
        generator.load_state_dict({name: x for name, x in weights.items() if name != "n_averaged"})
        with torch.no_grad():
            results.append(generator(batch.source, *draw_poses(batch, TINY.model)))
    torch.testing.assert_close(result, results[1], rtol=0, atol=1e-5)
    assert not torch.allclose(result, results[0], atol=1e-4)
