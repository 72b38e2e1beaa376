"""The report's order: its sections, and what its claims are called."""

import re

from ebmbook.claims import Claim

SECTIONS = {
    "1.1": "Why energy-based models",
    "2.1": "Energy and inference",
    "2.2": "Latent variables",
    "2.2.1": "Concept learning",
    "2.2.1.1": "How concepts are learned",
    "2.2.2": "Free energy",
    "2.3": "Generative models",
    "2.3.1": "Implicit generative models",
    "2.3.1.1": "Generative adversarial networks",
    "2.3.2": "Sampling-based methods",
    "2.3.2.1": "Sampling methods",
    "2.3.2.2": "Generalized energy-based models",
}
KINDS = {
    "def": "Definition",
    "eq": "Equation",
    "fig": "Figure",
    "thm": "Theorem",
    "claim": "Claim",
    "sys": "System",
    "paper": "Paper",
}
# Words that are written in capitals.
CAPITALS = {"cd", "dv", "gan", "gebm", "kale", "mh", "ml", "mlp", "nce", "pcd"}
# Names that are no words.
NAMES = {
    "claim-x-of-a-of-x": "x(a) and a(x)",
    "claim-z0-one": "Z0 is one",
    "paper-ex2mcmc": "Ex2MCMC",
    "sys-cyclegan": "CycleGAN",
    "sys-ddls": "DDLS",
    "sys-ebm-inference": "EBM inference",
    "sys-gan": "GAN",
    "sys-gebm": "GEBM",
    "sys-mh-gan": "MH-GAN",
    "sys-travelgan": "TraVeLGAN",
}
SECTION = re.compile(r"(\d+(?:\.\d+)*)\b")


def section(claim: Claim) -> str:
    """The section of the report that a claim stands in; "" for none."""
    found = SECTION.match(claim.where)
    return found[1] if found else ""


def kind(claim: Claim) -> str:
    """One of `KINDS`."""
    return claim.id.partition("-")[0]


def name(claim: Claim) -> str:
    """What a reader calls a claim: "Equation (R4)", "Figure 5", "Blurry mean"."""
    of, _, rest = claim.id.partition("-")
    if claim.id in NAMES:
        return NAMES[claim.id]
    if rest.isdigit():
        return f"{KINDS[of]} (R{rest})" if of == "eq" else f"{KINDS[of]} {rest}"
    words = " ".join(word.upper() if word in CAPITALS else word for word in rest.split("-"))
    return words[:1].upper() + words[1:]


def place(claim: Claim) -> tuple:
    """Where a claim stands in the report, to sort by: its section, kind and number.

    Claims of one section and kind keep the order of their file, if the sort is stable.
    """
    numbers = tuple(int(part) for part in section(claim).split(".") if part)
    number = claim.id.rpartition("-")[2]
    return (
        # What stands nowhere comes last.
        not numbers,
        numbers,
        [*KINDS].index(kind(claim)),
        int(number) if number.isdigit() else 0,
    )
