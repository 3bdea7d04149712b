"""The policies by name."""

from __future__ import annotations

from thalweg.online.cheb_cb import ChebCB
from thalweg.online.policy import Fixed, Policy
from thalweg.online.tsallis_inf import TsallisINF

#: The area's policies, by the names that tables use.
METHODS: dict[str, type[Policy]] = {"cheb-cb": ChebCB, "fixed": Fixed, "tsallis-inf": TsallisINF}
