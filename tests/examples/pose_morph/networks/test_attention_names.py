"""Names of attention: what they put where, and what they refuse."""

import pytest

from examples.pose_morph.errors import UserError
from examples.pose_morph.networks.attention_names import attention_name, default_rank, with_attention
from examples.pose_morph.networks.settings import Full, Grid, Nystromformer, Performer
from examples.pose_morph.presets import DEEPFASHION256, DEMO, HIGHRES512, TINY

PIVOT = DEEPFASHION256.model


def attention_of(model, name):
    """What the named attention puts at each level, largest first."""
    return [level.attention for level in with_attention(model, name).levels]


def test_gpa_is_the_preset():
    assert with_attention(PIVOT, "gpa") == with_attention(PIVOT, "GPA1024_12_64") == PIVOT
    assert attention_name(PIVOT) == "GPA1024_12_64"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GPA256_12_64", [Grid(4, (16, 16), 12), Grid(2, (16, 16), 12)] + [Full()] * 4),
        ("GPA1024_4_32", [Grid(8, (32, 32), 4), Grid(4, (32, 32), 4), Grid(2, (32, 32), 4)] + [Full()] * 3),
        ("gpa1024_12_128", [Grid(2, (32, 32), 12)] + [Full()] * 5),
        ("NYF512", [Nystromformer(512)] * 2 + [Full()] * 4),
        ("nystromformer", [Nystromformer(512)] * 2 + [Full()] * 4),
        ("PER708", [Performer(708)] * 2 + [Full()] * 4),
        ("performer", [Performer(512)] * 2 + [Full()] * 4),
        ("no", [None] * 2 + [Full()] * 4),
        ("full", [Full()] * 6),
    ],
)
def test_the_papers_ablations_are_names(name, expected):
    assert attention_of(PIVOT, name) == expected
    given = {"nystromformer": "NYF512", "performer": "PER512"}.get(name, name)
    assert attention_name(with_attention(PIVOT, name)).lower() == given.lower()


def test_cells_follow_the_shape_of_the_picture():
    assert attention_of(HIGHRES512.model, "GPA2048_1_64")[:3] == [Grid(d, (64, 32), 1) for d in (8, 4, 2)]
    assert attention_of(HIGHRES512.model, "GPA512_2_64")[0] == Grid(8, (32, 16), 2)
    assert attention_of(DEMO.model, "GPA160_4_32")[:2] == [Grid(4, (16, 10), 4), Grid(2, (16, 10), 4)]


def test_one_rival_may_replace_another():
    no = with_attention(PIVOT, "no")
    assert with_attention(no, "NYF512") == with_attention(PIVOT, "NYF512")
    assert with_attention(no, "GPA1024_12_64") == PIVOT


def test_a_rank_that_nobody_chose_is_small_beside_the_picture():
    assert [default_rank(size) for size in ((256, 256), (64, 40), (32, 20), (3, 3))] == [512, 512, 160, 1]
    assert attention_of(TINY.model, "nystromformer")[:2] == [Nystromformer(512), Nystromformer(160)]
    assert attention_name(with_attention(TINY.model, "performer")) == "PER512+PER160"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("GPA1000_12_64", "Phase 1 at 64x64 divides into 1, 4, 16, 64, 256, 1024, 4096 cells, not 1000"),
        ("GPA1024_12_100", "full attention up to one of the heights 128, 64, 32, 16, 8, got 100"),
        ("GPA1024_12_256", "full attention up to one of the heights 128, 64, 32, 16, 8, got 256"),
        ("GPA1024_5000_64", "expected kappa from 1 to 4096, got 5000"),
        ("GPA1024_0_64", "expected kappa from 1 to 4096, got 0"),
        ("GPA1024_12", "'GPA1024_12': expected gpa, full, no"),
        ("NYF", "'NYF': expected gpa, full, no, nystromformer, performer, or a name of the paper"),
        ("NYF0", "expected a rank from 1 to 16384"),
        ("NYF20000", "expected a rank from 1 to 16384"),
        ("foo", "'foo': expected gpa"),
        ("", "'': expected gpa"),
    ],
)
def test_bad_names_say_what_would_do(name, message):
    with pytest.raises(UserError) as caught:
        with_attention(PIVOT, name)
    assert message in str(caught.value)


def test_models_in_which_nothing_can_be_replaced_are_named():
    full = with_attention(PIVOT, "full")
    with pytest.raises(UserError, match="every level of the model has full attention"):
        with_attention(full, "NYF512")
    with pytest.raises(UserError, match="the model has no level with GPA"):
        with_attention(with_attention(PIVOT, "no"), "gpa")
