"""GPA for diffusers: in place of the dense self-attention of a transformer, a UNet or a VAE."""

from gpa_nd.diffusers.geometry import Geometry
from gpa_nd.diffusers.install import Installed, install
from gpa_nd.diffusers.processor import Layer

__all__ = ["Geometry", "Installed", "Layer", "install"]
