"""Command line of the book: `python -m ebmbook.press run`, `html`, `check`, and the others."""

import argparse
import json
import os
import signal
import sys

from ebmbook import ENDINGS, INTERRUPTED, claims
from ebmbook.press import notebooks, parameters, records, site
from ebmbook.press.notebooks import CLAIMS, ROOT, BookError
from ebmbook.press.runner import has_run, results_of_run, run_chapters
from ebmbook.press.variants import Variant
from ebmbook.profiles import resolve_profile
from ebmref.files import write_atomic


def _variant(args: argparse.Namespace) -> Variant:
    """The profile and parameters of the command line, checked."""
    if getattr(args, "device", None):
        # Only here: torch takes seconds to import.
        from ebmbook.runs import resolve_device

        os.environ["EBMREF_DEVICE"] = str(resolve_device(args.device))
    given = {}
    for text in args.parameter:
        given |= parameters.split(text)
    if getattr(args, "seed", None) is not None:
        given["seed"] = args.seed
    return Variant(resolve_profile(args.profile), parameters.parse(_chosen(args), given))


def _chosen(args: argparse.Namespace) -> list[str]:
    named = getattr(args, "chapter", None)
    return [notebooks.require_chapter(named)] if named else notebooks.chapters()


def run(args: argparse.Namespace) -> int:
    """Run the chapters that changed."""
    variant = _variant(args)
    run_chapters(_chosen(args), variant, args.jobs)
    print(f"runs: {variant.folder.relative_to(ROOT)}", file=sys.stderr)
    return 0


def record(args: argparse.Namespace) -> int:
    """Run the chapters and install the runs as records."""
    profile = resolve_profile(args.profile or "full")
    records.make_records(_chosen(args), profile, args.jobs, anew=args.anew)
    return 0


def sweep(args: argparse.Namespace) -> int:
    """Run chapters over seeds and machines: how often does each verdict hold."""
    from ebmbook.press import sweep as sweeping
    from ebmbook.press.engines import engine

    variant = _variant(args)
    if "seed" in variant.parameters:
        raise BookError("seed: a sweep takes SEEDS=, not a parameter")
    seeds = sweeping.parse_seeds(args.seeds)
    machines = sweeping.parse_machines(args.machines)
    chosen = engine(args.scheduler, args.jobs)
    for chapter, found in sweeping.sweep(_chosen(args), variant, seeds, machines, chosen).items():
        print("\n".join(sweeping.table(chapter, found, sweeping.claims_of(chapter))))
        if found["runs"]:
            print(f"  {sweeping.rates_path(chapter, variant).relative_to(ROOT)}", file=sys.stderr)
    return 0


def carry(args: argparse.Namespace) -> int:
    """Keep the records across a change that changes no number, on evidence."""
    from ebmbook.press.carry import carry, read_reasons

    reasons = read_reasons(args.reasons) if args.reasons else {}
    refused = 0
    for name in _chosen(args):
        try:
            print(carry(name, reasons), file=sys.stderr, flush=True)
        except (BookError, ValueError) as error:
            print(error, file=sys.stderr)
            refused += 1
    return 1 if refused else 0


def html(args: argparse.Namespace) -> int:
    """Render the records, or the runs of a profile, a seed, a parameter."""
    variant = None
    if args.profile is not None or args.seed is not None or args.parameter:
        variant = _variant(args)
    page = site.build(variant)
    print(f"open {page.relative_to(ROOT)}")
    return 0


def diff(args: argparse.Namespace) -> int:
    """What changed in the ledger since a commit: claims, verdicts, numbers."""
    from ebmbook.press import difference

    print(difference.between(args.since, args.until), end="")
    return 0


def cite(args: argparse.Namespace) -> int:
    """Make CITATION.cff and .zenodo.json from pyproject.toml."""
    from ebmbook.press import project

    changed = [path.name for path in project.write()]
    print(f"made anew: {', '.join(changed)}" if changed else "nothing changed", file=sys.stderr)
    return 0


def release(args: argparse.Namespace) -> int:
    """Make what a release keeps, of the pages rendered last: package, zip, sums, changes."""
    from ebmbook.press import release as releasing

    for path in releasing.make(args.tag, args.since):
        print(path.relative_to(ROOT))
    return 0


def links(args: argparse.Namespace) -> int:
    """Ask whether the links out of the pages rendered last lead somewhere; 1 if one does not."""
    from ebmbook.press import links as linking
    from ebmbook.press import project

    made = project.read()
    found = linking.check(site.HTML, (made.address, made.site))
    for one in found:
        what = "GONE" if one.gone else "no clear answer"
        print(f"{what} ({one.said}): {one.address} on {', '.join(one.pages)}")
    gone = sum(one.gone for one in found)
    print(f"{gone} links are gone, {len(found) - gone} gave no clear answer", file=sys.stderr)
    return 1 if gone else 0


def check(args: argparse.Namespace) -> int:
    """Hold what ran against the ledger; 1 when a verdict is not borne out."""
    variant = _variant(args)
    ran = [chapter for chapter in _chosen(args) if has_run(chapter, variant)]
    folder = variant.folder
    if not ran:
        asked = ", ".join(_chosen(args))
        raise BookError(f"{asked}: no results in {folder.relative_to(ROOT)}; run it first")
    measures = {chapter: results_of_run(chapter, variant)["measures"] for chapter in ran}
    # Claims of topics that have no chapter yet are open, whatever ran.
    skipped = {*notebooks.chapters()} - {*ran}
    asked = [
        claim
        for claim in notebooks.claims_in_order()
        if claim.chapter in ran or not (args.chapter or claim.chapter in skipped)
    ]
    judgements = claims.judge_all(asked, measures)
    for judgement in judgements if not args.brief else []:
        print("\n".join(judgement.rows()))
    table = [judgement.as_dict() for judgement in judgements]
    write_atomic(folder / "ledger.json", json.dumps(table, indent=1) + "\n")
    settled = [judgement for judgement in judgements if judgement.verdict != "open"]
    broken = [judgement for judgement in judgements if not judgement.holds]
    print(f"{len(settled)} of {len(judgements)} claims settled, {len(broken)} not borne out")
    if rest := [chapter for chapter in _chosen(args) if chapter not in ran]:
        print(f"judged {', '.join(ran)}; not run: {', '.join(rest)}", file=sys.stderr)
    for judgement in broken:
        print(f"{judgement.line()}{_held_elsewhere(judgement.claim)}", file=sys.stderr)
    # Who reads wants the pages; whether the results hold, the tests say.
    return 1 if broken and not args.brief else 0


def _held_elsewhere(claim: claims.Claim) -> str:
    """How often the verdict holds by the last sweep, where one was made."""
    from ebmbook import rates
    from ebmbook.press import sweep

    found = rates.read(sweep.rates_path(claim.chapter))
    if found is None or not found["runs"] or not rates.knows(found, claim):
        return ""
    of = " of an earlier code" if sweep.is_stale(claim.chapter, found) else ""
    return f" (in the sweep{of} it held in {rates.of_claim(found, claim)})"


def main() -> int:
    """Parse the command line; errors that the user can mend are one line."""
    parser = argparse.ArgumentParser(prog="python -m ebmbook.press", description=__doc__)
    commands = parser.add_subparsers(required=True)
    of_ledger = (run, sweep, record, carry, html, check)
    for function in (*of_ledger, diff, cite, release, links):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        if function is diff:
            command.add_argument("--since", required=True, help="a tag or another commit")
            command.add_argument("--until", default="", help="another; what lies here without it")
        if function is release:
            command.add_argument("--tag", default="", help="that it is to have; held to pyproject")
            command.add_argument("--since", default="", help="the release before")
        if function not in of_ledger:
            continue
        command.add_argument("--profile", help="quick or full; records are full")
        if function is not html:
            command.add_argument("--chapter", help="one chapter, for example why-energy")
        if function in (run, sweep, record):
            command.add_argument("--jobs", type=int, default=1, help="chapters at a time")
        if function is record:
            command.add_argument("--anew", action="store_true", help="run even what is fresh")
        if function is carry:
            command.add_argument("--reasons", help="YAML: why places that did not run are as were")
        if function is check:
            command.add_argument(
                "--brief",
                action="store_true",
                help="the last lines alone, and no judgement by status",
            )
        if function is sweep:
            command.add_argument("--seeds", default="0..19", help="as 0..19 or 0,3,7")
            command.add_argument("--machines", default="", help="of default, avx2, avx512")
            command.add_argument(
                "--scheduler", default="", metavar="WHERE",
                help="local:N, a scheduler file or an address of dask; here without it",
            )  # fmt: skip
        if function in (run, sweep):
            command.add_argument("--device", help="cpu or cuda; a GPU where there is one")
        if function in (run, html, check):
            command.add_argument("--seed", help="of the runs, a whole number")
        if function in (run, sweep, html, check):
            command.add_argument(
                "--parameter", action="append", default=[], metavar="NAME=VALUE ...",
                help="any parameters of the chapter's parameters cell",
            )  # fmt: skip
    # A polite kill is an interrupt: children end, nothing half-written stays.
    for how in ENDINGS:
        # nohup has the closing of a terminal ignored.
        if signal.getsignal(how) != signal.SIG_IGN:
            signal.signal(how, signal.default_int_handler)
    args = parser.parse_args()
    if getattr(args, "jobs", 1) < 1:
        parser.error("--jobs must be 1 or more")
    try:
        claims.load_claims(CLAIMS)
        return args.function(args)
    except (BookError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        # A full disk, a folder that may not be written.
        where = f": {os.path.relpath(error.filename)}" if error.filename else ""
        print(f"{error.strerror or error}{where}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing half-written is left", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
