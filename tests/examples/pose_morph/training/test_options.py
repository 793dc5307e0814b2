"""Settings that follow from the options, and options that cannot work."""

import pytest

from examples.pose_morph.errors import UserError
from examples.pose_morph.training.options import PEOPLE, Options, identity_of, licence_of, settings_of


def test_r1_gamma_follows_the_picture_and_the_batch():
    def gamma(**options):
        return settings_of(Options(**options)).training.r1_gamma

    assert gamma(preset="deepfashion256") == pytest.approx(4.37, abs=0.005)
    assert gamma(preset="deepfashion256", batch_size=6) == pytest.approx(4.37 / 2, abs=0.005)
    assert gamma(preset="demo") == 0.1


def test_the_minibatch_group_divides_what_a_process_sees_at_once():
    def group(processes=1, **options):
        return settings_of(Options(**options), processes).training.minibatch_group

    assert [group(batch_size=size) for size in (1, 2, 3, 4, 6, 7, 8, 12)] == [1, 2, 3, 4, 3, 1, 4, 4]
    assert group(2, batch_size=12, accumulate=3) == 2
    assert group(2, batch_size=8, minibatch_group=2) == 2


@pytest.mark.parametrize(
    ("processes", "options", "message"),
    [
        (1, {"max_steps": 0}, "--max-steps: expected at least 1, got 0"),
        (1, {"accumulate": 0}, "--accumulate: expected at least 1, got 0"),
        (1, {"changed_data": True}, "--changed-data: expected --resume with it"),
        (1, {"workers": -1}, "--workers: expected at least 0, got -1"),
        (1, {"seed": -1}, "--seed: expected at least 0, got -1"),
        (
            3,
            {"batch_size": 4},
            r"--batch-size: expected a multiple of 3 \(3 process.*accumulate 1\), got 4",
        ),
        (2, {"batch_size": 6, "accumulate": 2}, "--batch-size: expected a multiple of 4"),
        (2, {"batch_size": 8, "minibatch_group": 3}, r"--minibatch-group: .* divides the 4 sample\(s\) .* got 3"),
    ],
)
def test_options_that_cannot_work_are_refused(processes, options, message):
    with pytest.raises(UserError, match=message):
        settings_of(Options(**options), processes)


def test_a_run_that_goes_on_keeps_its_groups_where_they_fit():
    def group(kept, processes=1, **options):
        return settings_of(Options(batch_size=4, **options), processes, kept_group=kept).training.minibatch_group

    assert group(2) == 2
    assert group(2, minibatch_group=4) == 4
    assert group(4, processes=2) == 2  # and the checkpoint's settings refuse it


def test_the_shipped_people_bring_their_licence_and_other_data_none(tmp_path):
    assert licence_of(Options()) == "CC0-1.0"
    assert licence_of(Options(data=PEOPLE / ".." / "people")) == "CC0-1.0"
    assert licence_of(Options(licence="MIT")) == "MIT"
    assert licence_of(Options(data=tmp_path)) == "unknown"


def test_how_a_batch_is_divided_is_no_part_of_a_runs_identity():
    one = Options(batch_size=8, minibatch_group=2)
    two = Options(batch_size=8, minibatch_group=2, accumulate=2, workers=3)
    assert identity_of(one, settings_of(one)) == identity_of(two, settings_of(two, 2))
