"""Every kind of policy by name: one line each."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from goalward import UserError
from goalward.policies.base import Options
from goalward.policies.flow import Flow, FlowOptions
from goalward.policies.gcbc import GCBC, GCBCOptions
from goalward.policies.inverse import Inverse, InverseOptions
from goalward.policies.network import PolicyNetwork


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyKind:
    """What a kind consists of."""

    network: type[PolicyNetwork]
    """How it learns and acts."""
    options: type[Options]
    """What it may be told."""
    about: str
    """One line for lists."""


KINDS: dict[str, PolicyKind] = {
    "gcbc": PolicyKind(network=GCBC, options=GCBCOptions, about="goal-conditioned behaviour cloning, hindsight goals"),
    "flow": PolicyKind(network=Flow, options=FlowOptions, about="action chunks by flow matching, guided by the goal"),
    "inverse": PolicyKind(network=Inverse, options=InverseOptions, about="goal-conditioned inverse dynamics, no search"),
}


def find_kind(name: str) -> PolicyKind:
    """Looks a kind up.

    Raises:
        UserError: Unknown; names the nearest ones.
    """
    if name in KINDS:
        return KINDS[name]
    near = difflib.get_close_matches(name, KINDS, n=3, cutoff=0.4)
    raise UserError(f"policy {name!r} is unknown; " + (f"did you mean {' or '.join(near)}?" if near else f"choose {', '.join(KINDS)}"))
