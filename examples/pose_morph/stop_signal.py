"""Ctrl-C and SIGTERM as a wish to stop, which the training loop looks up between two steps."""

import signal
from types import FrameType, TracebackType


class StopSignal:
    """A context that holds back the first SIGINT or SIGTERM; a second one acts at once, as without this class.

    Attributes:
        received: The signal's number, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        """Nothing has been received."""
        self.received: int | None = None

    def __enter__(self) -> "StopSignal":
        """Take the signals over."""
        self._before = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
