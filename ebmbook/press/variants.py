"""One way of running the book: its size, its parameters, and where its runs live."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ebmbook import keys
from ebmbook.press.notebooks import RUNS


@dataclass(frozen=True)
class Variant:
    """A profile and the parameters given on top of it."""

    profile: str = "quick"
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Fit for a folder: the plain profile's is its own, parameters are told behind it."""
        extras = [f"{name}-{value}" for name, value in sorted(self.parameters.items())]
        told = "-".join([self.profile, *extras])
        # Any text may be a value, and not every one is a name of a folder.
        name = re.sub(r"[^\w.+-]", "_", told)[:80]
        return name if name == told else f"{name}-{keys.digest(told)}"

    @property
    def folder(self) -> Path:
        """Where its runs live."""
        return RUNS / self.name
