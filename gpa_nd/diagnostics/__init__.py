"""What an attention does, what it misses and what it costs."""

from gpa_nd.diagnostics.contributions import key_contributions
from gpa_nd.diagnostics.cost import Cost, cost
from gpa_nd.diagnostics.mass import Mass, captured_mass
from gpa_nd.diagnostics.proposals import Proposal, propose_capturing, propose_within
from gpa_nd.diagnostics.selected import Selected, captured_by, selected
from gpa_nd.diagnostics.work import Work

__all__ = [
    "Cost",
    "Mass",
    "Proposal",
    "Selected",
    "Work",
    "captured_by",
    "captured_mass",
    "cost",
    "key_contributions",
    "propose_capturing",
    "propose_within",
    "selected",
]
