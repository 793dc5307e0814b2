"""The grounds that pictures are drawn on: that of a light page, and that of a dark one."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb


@dataclass(frozen=True)
class Ground:
    """Colours, as the pages have them.

    Attributes:
        suffix: of the name of the file.
        paper: what is drawn on.
        ink: lines and letters.
        soft: lesser letters.
    """

    suffix: str
    paper: str
    ink: str
    soft: str

    def use(self) -> None:
        """Draw on it from here on."""
        colours = {"figure.facecolor": self.paper, "text.color": self.ink, "axes.edgecolor": self.ink}
        plt.rcParams.update({"font.size": 12.5, "font.family": "DejaVu Sans", **colours})

    def pale(self, picture: np.ndarray, share: float) -> np.ndarray:
        """A picture of which so much is left."""
        return (1 - share) * np.asarray(to_rgb(self.paper)) + share * picture


GROUNDS = (Ground("", "#ffffff", "#000000", "#333333"), Ground("_dark", "#131416", "#cfd0d0", "#9ca0a5"))
