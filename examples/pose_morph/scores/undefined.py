"""Scores that are not defined for some pictures."""

from examples.pose_morph.errors import UserError


class UndefinedScore(UserError):
    """A score is not defined for such small or few pictures; the message names it and says what it expects."""
