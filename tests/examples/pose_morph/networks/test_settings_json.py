"""Settings as JSON: every preset comes back as it was, and what does not fit is named with its place."""

import json
from dataclasses import dataclass, replace

import pytest

from examples.pose_morph.networks.attention_names import with_attention
from examples.pose_morph.networks.settings import ModelSettings
from examples.pose_morph.networks.settings_json import SettingsError, from_json, to_json
from examples.pose_morph.presets import DEMO, PRESETS


@pytest.mark.parametrize("attention", ["gpa", "full", "no", "nystromformer", "performer"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_with_every_attention_comes_back(preset, attention):
    settings = with_attention(PRESETS[preset].model, attention)
    data = json.loads(json.dumps(to_json(settings)))
    assert from_json(ModelSettings, data) == settings


def test_settings_of_one_rank_are_told_apart_by_their_names():
    two = [with_attention(DEMO.model, name) for name in ("NYF512", "PER512")]
    assert two[0] != two[1]
    assert [from_json(ModelSettings, to_json(settings)) for settings in two] == two


def test_a_field_that_is_missing_takes_its_default():
    data = to_json(replace(DEMO.model, key_channels=None))
    del data["key_channels"]
    assert from_json(ModelSettings, data).key_channels is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(depth=3), r"settings: ModelSettings has no depth in this version"),
        (lambda data: data.pop("size"), r"settings: ModelSettings expects size, which is missing"),
        (lambda data: data.update(size=[128]), r"settings\.size: expected 2 entries, got \[128\]"),
        (lambda data: data.update(size=[128.5, 80]), r"settings\.size\[0\]: expected int, got 128\.5"),
        (lambda data: data.update(size=[True, 80]), r"settings\.size\[0\]: expected int, got True"),
        (lambda data: data.update(size=[100, 80]), r"settings: ModelSettings refuses its values \(size: expected mult"),
        (lambda data: data.update(key_channels="9"), r"settings\.key_channels: expected int or NoneType, got '9'"),
        (lambda data: data["levels"][0].update(type="Step"), r"settings\.levels\[0\]: expected Level, got \{"),
        (lambda data: data["levels"][1]["attention"].update(type="Magic"), r"levels\[1\]\.attention: expected Full or"),
        (lambda data: data["levels"][0]["attention"].pop("kappa"), r"attention: Grid expects kappa, which is missing"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(change, message):
    data = json.loads(json.dumps(to_json(DEMO.model)))
    change(data)
    with pytest.raises(SettingsError, match=message):
        from_json(ModelSettings, data)


def test_names_may_be_missing_where_the_fields_tell():
    def without_names(data):
        if isinstance(data, dict):
            return {name: without_names(value) for name, value in data.items() if name != "type"}
        return [without_names(item) for item in data] if isinstance(data, list) else data

    assert from_json(ModelSettings, without_names(to_json(DEMO.model))) == DEMO.model
    low_rank = without_names(to_json(with_attention(DEMO.model, "NYF512")))
    with pytest.raises(SettingsError, match=r"expected Full or .* or Performer, got \{'rank': 512\}"):
        from_json(ModelSettings, low_rank)


@dataclass(frozen=True)
class Odd:
    """A field that JSON has no type for."""

    value: object


def test_what_json_has_no_type_for_is_refused_when_it_is_written():
    with pytest.raises(TypeError, match="value: expected a dataclass, tuple, number, string or None, got set"):
        to_json(Odd({1}))
