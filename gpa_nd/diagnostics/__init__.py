"""What an attention does, what it misses and what it costs."""

from gpa_nd.diagnostics.contributions import key_contributions
from gpa_nd.diagnostics.mass import Mass, captured_mass

__all__ = ["Mass", "captured_mass", "key_contributions"]
