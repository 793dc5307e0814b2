"""GPA in models of diffusers, all of them tiny and with random weights."""

import copy

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

import gpa_nd
from gpa_nd.diffusers import Geometry, install

ALL = 99
IMAGE = gpa_nd.image(2, 2, ALL, backend="torch")
VIDEO = gpa_nd.video((2, 2, 2), 2, ALL, backend="torch")
TEXT = 5


def unet():
    model = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    return model, {"sample": (4, 10, 7), "encoder_hidden_states": (TEXT, 8), "timestep": None}


def unconditional_unet():
    model = diffusers.UNet2DModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
    )
    return model, {"sample": (3, 12, 8), "timestep": None}


def vae():
    model = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    return model, {"sample": (3, 12, 8)}


def dit():
    model = diffusers.DiTTransformer2DModel(2, 4, in_channels=4, num_layers=1, sample_size=16, num_embeds_ada_norm=9)
    return model, {"hidden_states": (4, 12, 8), "timestep": None, "class_labels": None}


def pixart():
    model = diffusers.PixArtTransformer2DModel(
        2, 4, out_channels=8, num_layers=1, sample_size=16, cross_attention_dim=8, caption_channels=6
    )
    return model, {"hidden_states": (4, 12, 8), "timestep": None, "encoder_hidden_states": (TEXT, 6)}


def sd3():
    model = diffusers.SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=6,
        caption_projection_dim=8,
        pooled_projection_dim=6,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    inputs = {"encoder_hidden_states": (TEXT, 6), "pooled_projections": (6,), "timestep": None}
    return model, {"hidden_states": (4, 12, 8), **inputs}


def flux():
    model = diffusers.FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=6,
        pooled_projection_dim=6,
        axes_dims_rope=(2, 2, 4),
    )
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(4.0), indexing="ij")
    places = torch.stack([torch.zeros(24), rows.flatten(), columns.flatten()], dim=-1)
    inputs = {"encoder_hidden_states": (TEXT, 6), "pooled_projections": (6,), "timestep": None}
    return model, {"hidden_states": (24, 4), "img_ids": places, "txt_ids": torch.zeros(TEXT, 3), **inputs}


def wan():
    model = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=6,
        freq_dim=8,
        ffn_dim=8,
        num_layers=1,
    )
    return model, {"hidden_states": (4, 3, 8, 6), "timestep": None, "encoder_hidden_states": (TEXT, 6)}


def cogvideox():
    model = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=4,
        text_embed_dim=6,
        num_layers=1,
        sample_width=6,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=TEXT,
    )
    return model, {"hidden_states": (3, 4, 8, 6), "timestep": None, "encoder_hidden_states": (TEXT, 6)}


MODELS = {
    unet: {
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1": (10, 7),
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1": (5, 4),
        "mid_block.attentions.0.transformer_blocks.0.attn1": (5, 4),
        "up_blocks.0.attentions.0.transformer_blocks.0.attn1": (5, 4),
        "up_blocks.0.attentions.1.transformer_blocks.0.attn1": (5, 4),
        "up_blocks.1.attentions.0.transformer_blocks.0.attn1": (10, 7),
        "up_blocks.1.attentions.1.transformer_blocks.0.attn1": (10, 7),
    },
    unconditional_unet: {
        "down_blocks.1.attentions.0": (6, 4),
        "mid_block.attentions.0": (6, 4),
        "up_blocks.0.attentions.0": (6, 4),
        "up_blocks.0.attentions.1": (6, 4),
    },
    vae: {"encoder.mid_block.attentions.0": (6, 4), "decoder.mid_block.attentions.0": (6, 4)},
    dit: {"transformer_blocks.0.attn1": (6, 4)},
    pixart: {"transformer_blocks.0.attn1": (6, 4)},
    sd3: {f"transformer_blocks.{name}": (6, 4) for name in ("0.attn", "0.attn2", "1.attn")},
    flux: {"transformer_blocks.0.attn": (6, 4), "single_transformer_blocks.0.attn": (6, 4)},
    wan: {"blocks.0.attn1": (3, 4, 3)},
    cogvideox: {"transformer_blocks.0.attn1": (3, 4, 3)},
}


def made(make):
    """The model, and random inputs of these shapes for a batch of two."""
    model, shapes = make()
    inputs = {name: x for name, x in shapes.items() if isinstance(x, torch.Tensor)}
    for name, shape in shapes.items():
        if shape is None:
            inputs[name] = torch.tensor([3, 4])
        elif name not in inputs:
            inputs[name] = torch.randn(2, *shape, dtype=torch.float64)
    if make in (unet, unconditional_unet):
        inputs["timestep"] = torch.tensor(3)
    return model.double().eval(), inputs


class NotCopied:
    """A processor that GPA cannot be put into."""

    def __copy__(self):
        raise NotImplementedError


def with_gradients(model, inputs):
    """The output, and the gradients of all parameters."""
    out = model(**inputs).sample
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad((out * weights).sum(), parameters, allow_unused=True)
    return [out.detach(), *(x for x in gradients if x is not None)]


def assert_close(one, other):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11 * float(1 + b.abs().max()), rtol=0)


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_all_keys_selected_is_the_models_own_attention_and_removing_it_restores_that(make):
    model, inputs = made(make)
    own, names = with_gradients(model, inputs), list(model.state_dict())
    processors = [getattr(module, "processor", None) for module in model.modules()]
    installed = install(model, VIDEO if make in (wan, cogvideox) else IMAGE, minimum_tokens=0)
    assert_close(with_gradients(model, inputs), own)
    assert {name: layer.grid for name, layer in installed.layers.items()} == MODELS[make]
    assert all(layer.partitioned for layer in installed.layers.values())
    assert list(model.state_dict()) == names
    for layer in installed.layers.values():
        layer.attention.gpa = gpa_nd.video(2, 2, 1) if make in (wan, cogvideox) else gpa_nd.image(2, 2, 1)
    assert not torch.allclose(model(**inputs).sample, own[0])
    installed.remove()
    assert [getattr(module, "processor", None) for module in model.modules()] == processors
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(a.equal(b) for a, b in zip(with_gradients(model, inputs), own, strict=True))


def test_height_and_width_are_those_of_every_call():
    model, inputs = made(dit)
    with install(model, IMAGE, minimum_tokens=0) as installed:
        for height, width in ((8, 12), (12, 8), (4, 4)):
            inputs["hidden_states"] = torch.randn(2, 4, height, width, dtype=torch.float64)
            model(**inputs)
            assert [layer.grid for layer in installed.layers.values()] == [(height // 2, width // 2)]


def test_below_the_minimum_a_layer_attends_as_ever_and_says_so():
    model, inputs = made(unet)
    own = model(**inputs).sample
    installed = install(model, gpa_nd.image(2, 2, 1), minimum_tokens=71)
    assert str(installed).count("not called yet") == 7
    assert model(**inputs).sample.equal(own)
    assert not any(layer.partitioned for layer in installed.layers.values())
    installed.remove()
    installed = install(model, gpa_nd.image(2, 2, 1), minimum_tokens=70)
    assert not torch.allclose(model(**inputs).sample, own)
    assert {layer.grid for layer in installed.layers.values() if layer.partitioned} == {(10, 7)}
    assert "attn1: 10 × 7, GPA\n" in str(installed)
    assert "attn1: 5 × 4, its own attention, below 70 tokens\n" in str(installed)


def test_each_layer_may_have_a_gpa_of_its_own():
    model, inputs = made(unet)
    fine = install(model, gpa_nd.image(2, 4, 3), minimum_tokens=0, layers=lambda name: not name.startswith("mid"))
    coarse = install(model, gpa_nd.image(2, 2, 1), minimum_tokens=0)
    assert list(coarse.layers) == ["mid_block.attentions.0.transformer_blocks.0.attn1"]
    assert len(fine.layers) == 6
    model(**inputs)
    assert all(layer.partitioned for layer in (*fine.layers.values(), *coarse.layers.values()))


def test_copies_and_checkpoints_attend_alike():
    model, inputs = made(unet)
    install(model, gpa_nd.image(2, 2, 1), minimum_tokens=21)
    expected = with_gradients(model, inputs)
    twin = copy.deepcopy(model)
    model(**inputs | {"sample": torch.randn(2, 4, 6, 6, dtype=torch.float64)})  # has no say in what the twin does
    assert_close(with_gradients(twin, inputs), expected)
    twin.train()
    twin.enable_gradient_checkpointing()
    assert_close(with_gradients(twin, inputs), expected)


def test_checkpoints_follow_the_shape_of_each_call_that_is_gone_backward_through_before_the_next():
    model, inputs = made(pixart)
    install(model, gpa_nd.image(2, 2, 1), minimum_tokens=0)
    calls = [inputs | {"hidden_states": torch.randn(2, 4, *size, dtype=torch.float64)} for size in ((8, 12), (12, 8))]
    expected = [with_gradients(model, call) for call in calls]
    model.enable_gradient_checkpointing()
    model.train()
    for call, wanted in zip(calls, expected, strict=True):
        assert_close(with_gradients(model, call), wanted)


def test_a_compiled_model_is_the_same():
    model, inputs = made(flux)
    install(model, gpa_nd.image(2, 2, 1), minimum_tokens=0)
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        assert_close([compiled(**inputs).sample], [model(**inputs).sample])


def test_a_geometry_of_ones_own_stands_in_for_the_known_one():
    model, inputs = made(flux)
    inputs["img_ids"][12:, 1:] = inputs["img_ids"][:12, 1:]  # of two images, which the known one refuses
    own = with_gradients(model, inputs)
    geometry = Geometry(lambda module, args, kwargs: (6, 4), leading=TEXT)
    installed = install(model, IMAGE, minimum_tokens=0, geometry=geometry)
    assert_close(with_gradients(model, inputs), own)
    assert {layer.grid for layer in installed.layers.values()} == {(6, 4)}


def test_a_processor_that_was_set_since_stays():
    model, inputs = made(unet)
    installed = install(model, IMAGE, minimum_tokens=0)
    other = AttnProcessor()
    model.set_attn_processor(other)
    installed.remove()
    assert set(model.attn_processors.values()) == {other}
    model(**inputs)


@pytest.mark.parametrize("gpa", [gpa_nd.image(2, 2, 1, affinity="euclidean"), gpa_nd.image(2, 2, 1, causal=True)])
def test_bad_input_leaves_the_model_as_it_was(gpa):
    model, inputs = made(flux)
    own, processors = with_gradients(model, inputs), [getattr(module, "processor", None) for module in model.modules()]
    with pytest.raises(ValueError, match=r"gpa: expected affinity='dot'|leading, trailing: expected 0"):
        install(model, gpa, minimum_tokens=0)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert [getattr(module, "processor", None) for module in model.modules()] == processors
    assert all(a.equal(b) for a, b in zip(with_gradients(model, inputs), own, strict=True))


def test_bad_input_of_a_later_layer_leaves_the_earlier_ones_as_they_were():
    model, _ = made(flux)
    last = model.single_transformer_blocks[0].attn
    last.processor = NotCopied()
    processors = [getattr(module, "processor", None) for module in model.modules()]
    with pytest.raises(NotImplementedError):
        install(model, IMAGE, minimum_tokens=0)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert [getattr(module, "processor", None) for module in model.modules()] == processors


def with_processor(processor):
    model, inputs = made(pixart)
    for module in model.modules():
        if hasattr(module, "set_processor"):
            module.set_processor(processor)
    install(model, IMAGE, minimum_tokens=0)
    model(**inputs)


def called_around_the_model():
    model, _ = made(pixart)
    install(model, IMAGE, minimum_tokens=0)
    model.transformer_blocks[0].attn1(torch.randn(2, 24, 8, dtype=torch.float64))


def wrong_grid(make, grid=(5, 4), **text):
    model, inputs = made(make)
    install(model, IMAGE, minimum_tokens=0, geometry=Geometry(lambda module, args, kwargs: grid, **text))
    model(**inputs)


def two_images():
    model, inputs = made(flux)
    install(model, IMAGE, minimum_tokens=0)
    inputs["img_ids"][12:, 1:] = inputs["img_ids"][:12, 1:]
    model(**inputs)


def twice():
    model, _ = made(pixart)
    for _ in range(2):
        install(model, IMAGE, minimum_tokens=0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: install(None, IMAGE, minimum_tokens=0),
            TypeError,
            "model: expected a model of diffusers, .* NoneType",
        ),
        (lambda: install(made(pixart)[0], None, minimum_tokens=0), TypeError, "gpa: expected a GPA, got NoneType"),
        (lambda: install(made(pixart)[0], IMAGE, minimum_tokens=-1), ValueError, "minimum_tokens: expected at least 0"),
        (
            lambda: install(made(pixart)[0], IMAGE, minimum_tokens=0, geometry=(6, 4)),
            TypeError,
            "geometry: expected a Geometry, got tuple",
        ),
        (
            lambda: install(torch.nn.Linear(2, 2), IMAGE, minimum_tokens=0),
            ValueError,
            "model: expected self-attention that has no GPA yet, .* got none in Linear",
        ),
        (
            lambda: install(made(flux)[0], IMAGE, minimum_tokens=0, layers=lambda name: "attn1" in name),
            ValueError,
            r"layers: expected some of the names transformer_blocks.0.attn, single_.*attn, got .* true for none",
        ),
        (twice, ValueError, "model: expected self-attention that has no GPA yet"),
        (
            lambda: with_processor(AttnProcessor()),
            RuntimeError,
            r"blocks.0.attn1: expected its processor to call scaled_dot_product_attention once, got 0 calls",
        ),
        (called_around_the_model, RuntimeError, "transformer_blocks.0.attn1: expected a latent"),
        (
            lambda: wrong_grid(dit),
            ValueError,
            r"transformer_blocks.0.attn1, on a grid of \(5, 4\): query: expected 20 tokens, .* got 24",
        ),
        (lambda: wrong_grid(flux, (6, 4), leading=4), ValueError, "expected 28 tokens, .* got 29"),
        (two_images, ValueError, "img_ids: expected those of one image, got 24 in 3 rows and 4 columns"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
