"""GPA as an attention implementation of transformers, in tiny models with random weights."""

import pytest
import torch
import transformers

import gpa_nd
from gpa_nd.nn import AspectGrid, TokenAttention
from gpa_nd.transformers import register, token_attention

ALL = 99
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SOUND = {"conv_dim": (8, 8), "conv_stride": (2, 2), "conv_kernel": (3, 3), "feat_extract_norm": "layer"}
IMAGE = (24, 16)


def image(kappa=ALL, **settings):
    return gpa_nd.image(2, 2, kappa, backend="torch", **settings)


def video(kappa=ALL):
    return gpa_nd.video((1, 2, 2), (2, 2, 2), kappa, backend="torch")


def sequence(kappa=ALL, **settings):
    return gpa_nd.audio(4, 4, kappa, backend="torch", **settings)


def pixels(*shape):
    return {"pixel_values": torch.randn(2, *shape, dtype=torch.float64)}


def of_images(name, model, **more):
    config = getattr(transformers, f"{name}Config")(**SMALL, **{"image_size": IMAGE, "patch_size": 4} | more)
    return getattr(transformers, model)(config), pixels(3, *IMAGE)


def video_mae():
    size = {"image_size": IMAGE, "patch_size": (4, 4), "num_frames": 4, "tubelet_size": 2}
    config = transformers.VideoMAEConfig(**SMALL, **size)
    return transformers.VideoMAEModel(config), pixels(4, 3, *IMAGE)


def vivit():
    size = {"image_size": IMAGE, "num_frames": 4, "tubelet_size": [2, 4, 4]}
    return transformers.VivitModel(transformers.VivitConfig(**SMALL, **size)), pixels(4, 3, *IMAGE)


def spectrogram():
    config = transformers.ASTConfig(
        **SMALL, patch_size=4, num_mel_bins=16, max_length=20, frequency_stride=3, time_stride=2
    )
    return transformers.ASTModel(config), {"input_values": torch.randn(2, 20, 16, dtype=torch.float64)}


def waveform():
    config = transformers.Wav2Vec2Config(
        **SMALL, **SOUND, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, mask_time_prob=0.0
    )
    padded = torch.arange(120) < torch.tensor([[120], [70]])
    return transformers.Wav2Vec2Model(config), {
        "input_values": torch.randn(2, 120, dtype=torch.float64),
        "attention_mask": padded.long(),
    }


def whisper_encoder():
    size = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
    config = transformers.WhisperConfig(**size, num_mel_bins=8, max_source_positions=30)
    model = transformers.WhisperForAudioClassification(config).encoder
    return model, {"input_features": torch.randn(2, 8, 60, dtype=torch.float64)}


MODELS = {
    "ViT": (lambda: of_images("ViT", "ViTModel"), image, (6, 4), 1),
    "DeiT": (lambda: of_images("DeiT", "DeiTModel"), image, (6, 4), 2),
    "DINOv2": (lambda: of_images("Dinov2", "Dinov2Model", image_size=24), image, (6, 4), 1),
    "DINOv2 with registers": (
        lambda: of_images("Dinov2WithRegisters", "Dinov2WithRegistersModel", image_size=24, num_register_tokens=3),
        image,
        (6, 4),
        4,
    ),
    "DINOv3": (lambda: of_images("DINOv3ViT", "DINOv3ViTModel", num_register_tokens=2), image, (6, 4), 3),
    "VideoMAE": (video_mae, video, (2, 6, 4), 0),
    "ViViT": (vivit, video, (2, 6, 4), 1),
    "spectrogram transformer": (spectrogram, image, (5, 9), 2),
    "wav2vec 2, padded": (waveform, sequence, None, 0),
    "the encoder of Whisper": (whisper_encoder, sequence, None, 0),
}


def with_gradients(model, inputs):
    """The last hidden state, and the gradients of all parameters that have one."""
    out = model(**inputs).last_hidden_state
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad((out * weights).sum(), parameters, allow_unused=True)
    return [out.detach(), *(x for x in gradients if x is not None)]


def assert_close(one, other):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11 * (1 + float(b.abs().max())), rtol=0)


@pytest.mark.parametrize("case", MODELS)
def test_all_keys_selected_is_the_models_own_attention_and_its_name_restores_that(case):
    make, gpa, grid, leading = MODELS[case]
    model, inputs = make()
    model = model.double().eval()
    own, names = with_gradients(model, inputs), list(model.state_dict())
    resized = IMAGE if "DINO" in case else None  # their embeddings are interpolated for every size
    attention = token_attention(model.config, gpa(), image_size=resized)
    assert attention.leading == leading
    assert grid is None or attention.grid == grid
    register("gpa_test", attention)
    model.set_attn_implementation("gpa_test")
    assert_close(with_gradients(model, inputs), own)
    assert list(model.state_dict()) == names
    attention.gpa = gpa(1)
    assert not torch.allclose(with_gradients(model, inputs)[0], own[0])
    model.set_attn_implementation("sdpa")
    assert all(a.equal(b) for a, b in zip(with_gradients(model, inputs), own, strict=True))


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_a_model_of_images_and_text_has_gpa_for_its_images_alone(kind):
    towers = {"text_config": {**SMALL, "vocab_size": 9, "eos_token_id": 8, "bos_token_id": 0, "pad_token_id": 1}}
    towers["vision_config"] = {**SMALL, "image_size": 24, "patch_size": 4}
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**towers)).double().eval()
    inputs = {"input_ids": torch.tensor([[0, 4, 5, 8]]), "pixel_values": torch.randn(1, 3, 24, 24).double()}
    with torch.no_grad():
        own = model(**inputs)
    attention = token_attention(model.config, image())
    assert attention.grid == (6, 6)
    register("gpa_test", attention)
    model.set_attn_implementation({"vision_config": "gpa_test"})
    with torch.no_grad():
        assert_close([model(**inputs).logits_per_image], [own.logits_per_image])
        attention.gpa = image(1)
        other = model(**inputs)
    assert other.text_embeds.equal(own.text_embeds)
    assert not torch.allclose(other.image_embeds, own.image_embeds)


def test_images_of_another_size_have_another_grid():
    model, _ = of_images("ViT", "ViTModel", image_size=24)
    model, inputs = model.double().eval(), {**pixels(3, 16, 40), "interpolate_pos_encoding": True}
    own = with_gradients(model, inputs)
    register("gpa_test", token_attention(model.config, image(), image_size=(16, 40)))
    model.set_attn_implementation("gpa_test")
    assert_close(with_gradients(model, inputs), own)
    register("gpa_test", TokenAttention(image(), AspectGrid(2, 5), leading=1))
    assert_close(with_gradients(model, inputs), own)


def test_a_causal_decoder_without_a_cache_computes_what_it_did():
    config = transformers.LlamaConfig(**SMALL, num_key_value_heads=1, vocab_size=11, use_cache=False)
    model = transformers.LlamaModel(config).double().eval()
    ids = torch.randint(11, (2, 37))
    calls = [{"input_ids": ids}, {"input_ids": ids, "attention_mask": (torch.arange(37) < 30).expand(2, 37).long()}]
    own = [with_gradients(model, call) for call in calls]
    register("gpa_test", TokenAttention(sequence(causal=True), lambda n: (n,)))
    model.set_attn_implementation("gpa_test")
    for call, wanted in zip(calls, own, strict=True):
        found = with_gradients(model, call)
        assert_close([x[:, :30] if x.ndim == 3 else x for x in found][:1], [wanted[0][:, :30]])
    assert_close(with_gradients(model, calls[0]), own[0])


def test_a_compiled_model_is_the_same():
    model, inputs = of_images("ViT", "ViTModel")
    model = model.double().eval()
    register("gpa_test", token_attention(model.config, image(1)))
    model.set_attn_implementation("gpa_test")
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)(**inputs)
        assert_close([compiled.last_hidden_state], [model(**inputs).last_hidden_state])


def test_what_is_not_about_attention_may_be_asked_for_as_well():
    model, inputs = of_images("Dinov2", "Dinov2Model", image_size=24)
    model = model.double().eval()
    register("gpa_test", token_attention(model.config, image(), image_size=IMAGE))
    model.set_attn_implementation("gpa_test")
    more = {"interpolate_pos_encoding": True, "output_hidden_states": True, "return_dict": True, "use_cache": True}
    more |= {"num_items_in_batch": torch.tensor(2), "position_ids": torch.arange(25)[None], "kernel_options": None}
    assert model(**inputs, **more).last_hidden_state.equal(model(**inputs).last_hidden_state)
    assert len(model(**inputs, **more).hidden_states) == 3


def vit(**call):
    model, _ = of_images("ViT", "ViTModel", image_size=16, attention_probs_dropout_prob=0.1)
    inputs = pixels(3, 16, 16)
    register("gpa_test", token_attention(model.config, image()))
    model.set_attn_implementation("gpa_test")
    if call.pop("train", False):
        model.double().train()(**inputs)
    model.double().eval()(**inputs | call)


def decoder(attention=None, **more):
    kind = "Mistral" if "sliding_window" in more else "Llama"
    config = getattr(transformers, f"{kind}Config")(
        **SMALL, num_key_value_heads=1, vocab_size=11, use_cache=False, **more
    )
    model = getattr(transformers, f"{kind}Model")(config)
    register("gpa_test", attention or TokenAttention(sequence(causal=True), lambda n: (n,)))
    model.set_attn_implementation("gpa_test")
    return model


def after_a_cache():
    model, ids = decoder(), torch.ones(1, 8, dtype=torch.long)
    first = model(ids, use_cache=True)
    model(ids[:, :1], past_key_values=first.past_key_values, use_cache=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: register(1, None), TypeError, "name: expected a string, got int"),
        (lambda: register("gpa", image()), TypeError, "attention: expected a TokenAttention, got GPA"),
        (lambda: register("sdpa", TokenAttention(image(), (4, 4))), ValueError, "name: expected one that is not taken"),
        (
            lambda: register("eager", TokenAttention(image(), (4, 4))),
            ValueError,
            "name: expected one that is not taken",
        ),
        (lambda: register("me/gpa", TokenAttention(image(), (4, 4))), ValueError, "name: expected an identifier"),
        (lambda: register("my_flash", TokenAttention(image(), (4, 4))), ValueError, "name: expected an identifier"),
        (
            lambda: token_attention(transformers.BertConfig(), image()),
            ValueError,
            "config: expected that of .*vit.*, got bert; for another model make a gpa_nd.nn.TokenAttention",
        ),
        (
            lambda: token_attention(transformers.ViTConfig(), gpa_nd.audio()),
            ValueError,
            r"grid: expected 1 axes, as GridPartitioner\(.*\) of the GPA has, got \(14, 14\)",
        ),
        (
            lambda: token_attention(transformers.VideoMAEConfig(), image()),
            ValueError,
            r"grid: expected 2 axes, as GridPartitioner\(.*\) of the GPA has, got \(8, 14, 14\)",
        ),
        (
            lambda: token_attention(transformers.Wav2Vec2Config(), sequence(), image_size=(4, 4)),
            ValueError,
            "image_size: expected None for wav2vec2, which has no images",
        ),
        (
            lambda: token_attention(transformers.ASTConfig(), image(), image_size=(4, 4)),
            ValueError,
            "image_size: expected None for audio-spectrogram-transformer, which has no images",
        ),
        (
            lambda: token_attention(transformers.ViTConfig(), image(), image_size=(4, 4, 4)),
            ValueError,
            r"image_size: expected height and width, got \(4, 4, 4\)",
        ),
        (
            lambda: token_attention(transformers.ViTConfig(), image(), image_size=224),
            TypeError,
            "image_size: expected a tuple of height and width, got 224",
        ),
        (
            lambda: token_attention(transformers.ViTConfig(), image(), image_size=(224, 0)),
            ValueError,
            "image_size: expected at least 1, got 0",
        ),
        (lambda: token_attention(transformers.ViTConfig(), None), TypeError, "gpa: expected a GPA, got NoneType"),
        (lambda: vit(train=True), ValueError, "dropout_p: expected 0, .* got 0.1; set the attention dropout"),
        (
            lambda: vit(**pixels(3, 32, 16), interpolate_pos_encoding=True),
            ValueError,
            r"query: expected 17 tokens, those of the grid \(4, 4\) and 1 global ones, got 33",
        ),
        (lambda: vit(output_attentions=True), ValueError, "output_attentions: expected None, since GPA has no matrix"),
        (
            lambda: vit(cu_seq_lens_q=torch.tensor([0, 17, 34]).int()),
            ValueError,
            "cu_seq_lens_q: expected None, since GPA has no sequence of several packed ones here .* got Tensor",
        ),
        (
            lambda: vit(kernel_options={"BLOCK_M": 32}),
            ValueError,
            "kernel_options: expected None, since GPA does not know what it asks for, got {'BLOCK_M': 32}",
        ),
        (
            lambda: decoder(TokenAttention(sequence(), lambda n: (n,)))(torch.ones(1, 8, dtype=torch.long)),
            ValueError,
            "is_causal: expected False as the GPA was made, got True",
        ),
        (after_a_cache, ValueError, "key: expected 1 tokens as query has, got 9"),
        (
            lambda: decoder(sliding_window=4)(torch.ones(1, 8, dtype=torch.long)),
            ValueError,
            "attention_mask: expected padding, or a causal model without a sliding window",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
