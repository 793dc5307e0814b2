"""Limb coordinates stay with the body."""

import torch

from examples.pose_morph.networks.limb_coordinates import (
    BACKGROUND_CHANNELS,
    CHANNELS,
    HEAD,
    MEMBERSHIP,
    PARTS,
    limb_coordinates,
)

BODY = CHANNELS - BACKGROUND_CHANNELS
SIZE = (64, 40)


def test_memberships_and_background_sum_to_one(standing):
    places = limb_coordinates(standing[None], SIZE)
    assert places.shape == (1, CHANNELS, *SIZE)
    total = places[:, : len(PARTS)].sum(dim=1) / MEMBERSHIP + places[:, -BACKGROUND_CHANNELS] / MEMBERSHIP
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_part_owns_its_middle_and_the_background_owns_the_corner(standing):
    places = limb_coordinates(standing[None], SIZE)[0]
    right_thigh = next(number for number, part in enumerate(PARTS) if part.start == (8,) and part.end == (9,))
    middle = ((standing[8] + standing[9]) / 2).round().int().tolist()
    assert places[: len(PARTS), middle[1], middle[0]].argmax() == right_thigh
    assert places[-BACKGROUND_CHANNELS, 0, 0] > 0.99 * MEMBERSHIP
    assert places[-BACKGROUND_CHANNELS, middle[1], middle[0]] < 0.3 * MEMBERSHIP


def test_coordinates_follow_a_moved_body(standing):
    there = limb_coordinates(standing[None], SIZE)
    moved = limb_coordinates((standing + torch.tensor([3.0, 5.0]))[None], SIZE)
    torch.testing.assert_close(moved[:, :BODY, 5:, 3:], there[:, :BODY, :-5, :-3], atol=1e-5, rtol=1e-5)


def test_coordinates_follow_a_limb_that_turns():
    """A lone forearm hanging down and the same forearm stretched out: each pixel's place turns with it."""
    hanging = torch.full((18, 2), torch.nan)
    hanging[[3, 4]] = torch.tensor([[32.0, 32.0], [32.0, 48.0]])
    hanging[[2, 5, 8, 11]] = torch.tensor([[20.0, 10.0], [44.0, 10.0], [22.0, 60.0], [42.0, 60.0]])
    stretched = hanging.clone()
    stretched[4] = torch.tensor([16.0, 32.0])  # a quarter turn clockwise, as seen: down becomes left
    forearm = next(number for number, part in enumerate(PARTS) if part.start == (3,))
    before, after = (limb_coordinates(x[None], (65, 65))[0, forearm] for x in (hanging, stretched))
    assert before[48, 32] > 0.25
    torch.testing.assert_close((before[44, 32] > 0), (after[32, 20] > 0))
    assert after[32, 16] > 0.25
    assert after[48, 32] < before[48, 32]


def test_the_body_finds_itself_again_by_its_coordinates(standing):
    """The most similar place of the same body in another pose is the same place, on the picture's grid."""
    bent = standing.clone()
    bent[4] = torch.tensor([2.0, 24.0])  # the right hand goes up and out
    one, other = (limb_coordinates(x[None], SIZE)[0].flatten(1) for x in (standing, bent))
    similar = torch.nn.functional.normalize(other, dim=0).t() @ torch.nn.functional.normalize(one, dim=0)
    halfway = ((bent[3] + bent[4]) / 2).round().int()
    found = similar[halfway[1] * SIZE[1] + halfway[0]].argmax().item()
    wanted = (standing[3] + standing[4]) / 2
    assert (torch.tensor([found % SIZE[1], found // SIZE[1]]) - wanted).norm() < 2.5


def test_a_side_stays_a_side_from_behind(standing):
    """Turning round flips the picture of the trunk; the person's left stays the person's left."""
    behind = standing.clone()
    behind[:, 0] = 39 - behind[:, 0]
    front, back = limb_coordinates(torch.stack([standing, behind]), SIZE)
    torch.testing.assert_close(back[:BODY].flip(-1), front[:BODY], atol=1e-5, rtol=1e-5)


def test_unknown_joints_leave_their_parts_out(standing):
    standing[9] = torch.nan
    places = limb_coordinates(standing[None], SIZE)[0]
    assert torch.isfinite(places).all()
    for number, part in enumerate(PARTS):
        assert bool(places[number].abs().max() == 0) == (9 in part.start + part.end)


def test_a_head_seen_from_behind_goes_straight_on_from_the_trunk(standing):
    """One ear tells the height, not the side; with no joint of the head at all the trunk tells both."""
    for known in ([16], []):
        hidden = [joint for joint in (0, 14, 15, 16, 17) if joint not in known]
        behind = standing.clone()
        behind[hidden] = torch.nan
        places = limb_coordinates(behind[None], SIZE)[0]
        assert places[: len(PARTS), 9, 20].argmax() == HEAD
        assert places[HEAD, 9, 20] > 0.5 * MEMBERSHIP
        torch.testing.assert_close(places[HEAD, 9, 18], places[HEAD, 9, 22])
