"""Command line of the book: `python -m ebmbook {run,record,html,check} ...`."""

import argparse
import json
import os
import signal
import sys

import yaml

from ebmbook import INTERRUPTED, notebooks, records, site
from ebmbook.notebooks import BOOK, ROOT, BookError
from ebmbook.runner import Variant, run_chapters
from ebmref import claims, files
from ebmref.profiles import resolve_profile


def _variant(args: argparse.Namespace) -> Variant:
    """The profile and parameters of the command line, checked."""
    if args.device:
        # Only here: torch takes seconds to import.
        from ebmref.runs import resolve_device

        os.environ["EBMREF_DEVICE"] = str(resolve_device(args.device))
    parameters = {}
    for text in args.parameter:
        name, separator, value = text.partition("=")
        if not separator or not name.isidentifier():
            raise BookError(f"a parameter is NAME=VALUE; got {text!r}")
        parameters[name] = yaml.safe_load(value)
    if args.seed is not None:
        parameters["seed"] = args.seed
    return Variant(resolve_profile(args.profile), parameters)


def _chosen(args: argparse.Namespace) -> list[str]:
    return [notebooks.require_chapter(args.chapter)] if args.chapter else notebooks.chapters()


def run(args: argparse.Namespace) -> int:
    """Run the chapters that changed."""
    variant = _variant(args)
    # A parameter that the chapter does not have would be injected and never read.
    for chapter in _chosen(args):
        known = notebooks.parameters(chapter)
        for name in variant.parameters:
            if name not in known:
                raise BookError(f"{chapter}: no parameter {name!r}; it has {', '.join(known)}")
    run_chapters(_chosen(args), variant, args.jobs)
    print(f"runs: {variant.folder.relative_to(ROOT)}", file=sys.stderr)
    return 0


def record(args: argparse.Namespace) -> int:
    """Run the chapters and install the runs as records."""
    profile = resolve_profile(args.profile or "full")
    records.make_records(_chosen(args), profile, args.jobs)
    return 0


def html(args: argparse.Namespace) -> int:
    """Render the records, or the runs of a profile."""
    if args.profile is None:
        page = site.build("record", BOOK)
    else:
        page = site.build(args.profile, Variant(resolve_profile(args.profile)).folder)
    print(f"open {page.relative_to(ROOT)}")
    return 0


def check(args: argparse.Namespace) -> int:
    """Hold a run against the ledger; 1 when a verdict is not borne out."""
    folder = Variant(resolve_profile(args.profile)).folder
    measures = {}
    for chapter in notebooks.chapters():
        path = folder / "results" / f"{chapter}.json"
        if not path.is_file():
            raise BookError(f"{chapter}: no results in {folder.relative_to(ROOT)}; run it first")
        measures[chapter] = claims.parse_results(path.read_text(), path.name)["measures"]
    judgements = claims.judge_all(claims.load_claims(BOOK / "claims.yml"), measures)
    for judgement in judgements if not args.brief else []:
        print("\n".join(judgement.rows()))
    table = [judgement.as_dict() for judgement in judgements]
    files.write_atomic(folder / "ledger.json", json.dumps(table, indent=1) + "\n")
    settled = [judgement for judgement in judgements if judgement.verdict != "open"]
    broken = [judgement for judgement in judgements if not judgement.holds]
    print(f"{len(settled)} of {len(judgements)} claims settled, {len(broken)} not borne out")
    for judgement in broken:
        print(judgement.line(), file=sys.stderr)
    return 1 if broken else 0


def main() -> int:
    """Parse the command line; errors that the user can mend are one line."""
    parser = argparse.ArgumentParser(prog="python -m ebmbook", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for function in (run, record, html, check):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        command.add_argument("--profile", help="quick or full; records are full")
        if function in (run, record):
            command.add_argument("--chapter", help="one chapter, for example 01-why-energy")
            command.add_argument("--jobs", type=int, default=1, help="chapters at a time")
        if function is check:
            command.add_argument("--brief", action="store_true", help="the last line alone")
        if function is run:
            command.add_argument("--seed", type=int)
            command.add_argument("--device", help="cpu or cuda; a GPU where there is one")
            command.add_argument(
                "--parameter", action="append", default=[], metavar="NAME=VALUE",
                help="any parameter of the chapter's parameters cell",
            )  # fmt: skip
    # A polite kill is an interrupt: children end, nothing half-written stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = parser.parse_args()
    if getattr(args, "jobs", 1) < 1:
        parser.error("--jobs must be 1 or more")
    try:
        claims.load_claims(BOOK / "claims.yml")
        return args.function(args)
    except (BookError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing half-written is left", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
