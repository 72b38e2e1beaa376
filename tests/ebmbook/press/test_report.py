"""The report's order, and what its claims are called."""

import pytest

from ebmbook.claims import Claim
from ebmbook.press import notebooks, report


def claim(name: str, where: str = "2.2") -> Claim:
    return Claim(name, "chapter", where, "It says.")


@pytest.mark.parametrize(
    "name, told",
    [
        ("eq-4", "Equation (R4)"),
        ("fig-5", "Figure 5"),
        ("thm-2", "Theorem 2"),
        ("def-1", "Definition 1"),
        ("claim-blurry-mean", "Blurry mean"),
        ("claim-mlp-single-output", "MLP single output"),
        ("sys-mh-gan", "MH-GAN"),
        ("paper-cd-on-bits", "CD on bits"),
    ],
)
def test_names(name, told):
    assert report.name(claim(name)) == told


@pytest.mark.parametrize(
    "where, told",
    [
        ("2.2.2, equation R4", "2.2.2"),
        ("1.1", "1.1"),
        ("LeCun et al. 2006, table 1", ""),
        ("2.3.1.1, figure 5", "2.3.1.1"),
    ],
)
def test_sections(where, told):
    assert report.section(claim("eq-4", where)) == told


def test_order_is_the_reports():
    """Sections as numbers, and in a section definitions, equations, figures, theorems, claims."""
    wanted = [
        claim("claim-b", "2.2"),
        claim("eq-9", "2.2.1"),
        claim("eq-10", "2.2.1"),
        claim("fig-1", "2.2.1"),
        claim("thm-1", "2.2.1"),
        claim("claim-a", "2.2.1"),
        claim("sys-a", "2.2.1"),
        claim("eq-1", "2.10"),
        claim("paper-a", "Hinton 2002"),
    ]
    for some in (wanted[::-1], wanted[::2] + wanted[1::2]):
        assert sorted(some, key=report.place) == wanted


def test_every_claim_of_the_report_stands_in_a_section_with_a_title():
    ours = [one for one in notebooks.claims_in_order() if not one.is_of_paper]
    assert {report.section(one) for one in ours} <= report.SECTIONS.keys()
