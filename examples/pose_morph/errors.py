"""The one error that the script prints as a message, without a traceback."""


class UserError(ValueError):
    """Something that the person at the keyboard can put right; the message says what and where."""
