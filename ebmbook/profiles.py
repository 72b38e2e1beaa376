"""The two sizes a chapter runs in.

`quick` is what two CPU cores finish in seconds, with nothing to download; `full` is the
size a claim deserves. Apart from `ebmbook.runs`, so that tools need not import torch.
"""

import os

PROFILES = ("quick", "full")


def resolve_profile(profile: str | None = None) -> str:
    """The argument, else the environment's `EBMREF_PROFILE`, else "quick".

    Raises:
        ValueError: the name is no profile.
    """
    name = profile or os.environ.get("EBMREF_PROFILE") or "quick"
    if name not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}; got {name!r}")
    return name
