"""Lay out the site: a folder for each release, made from the zip of its pages.

    python -m ebmbook.press.versions FOLDER TARGET

FOLDER holds what the releases keep: `NAME-book-vX.Y.Z.zip`, each with `NAME-vX.Y.Z.sha256`, which
it is held to. In TARGET there are then `vX.Y.Z/`, a copy of the newest as `latest/`,
`versions.json` for the switch on each page, and a first page that leads to the newest. Needs
nothing but Python.
"""

import hashlib
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

ZIP = re.compile(r"(?P<name>.+)-book-(?P<tag>v(?P<version>\d+(?:\.\d+)*)(?P<rest>[\w.-]*))\.zip")
# A site may be no larger than a gigabyte; the zips of the others stay with their releases.
MOST = 12
LEADS_ON = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>The book</title>
<meta http-equiv="refresh" content="0; url=latest/">
<p>The newest edition is <a href="latest/">here</a>.</p>
</html>
"""


def order(tag: re.Match) -> tuple:
    """To sort releases by; one with more behind its numbers, `v1.0rc1`, comes before it."""
    return [int(part) for part in tag["version"].split(".")], not tag["rest"], tag["rest"]


def is_as_summed(path: Path, sums: Path) -> bool:
    """Whether a file has the SHA-256 that a file of sums has for it."""
    wanted = dict(
        reversed(line.split(maxsplit=1)) for line in sums.read_text().splitlines() if line.strip()
    )
    wanted = {name.lstrip("*"): digest for name, digest in wanted.items()}
    return wanted.get(path.name) == hashlib.sha256(path.read_bytes()).hexdigest()


def lay_out(releases: Path, target: Path) -> list[str]:
    """Make the site anew; returns the tags that it has, the newest first.

    Raises:
        ValueError: there is no release, or a zip is not the one that its sums are of.
    """
    found = [match for path in releases.glob("*.zip") if (match := ZIP.fullmatch(path.name))]
    found = sorted(found, key=order, reverse=True)[:MOST]
    if not found:
        raise ValueError(f"{releases.name}: no zip of a release in it")
    for one in found:
        path = releases / one[0]
        sums = releases / f"{one['name']}-{one['tag']}.sha256"
        if not sums.is_file():
            raise ValueError(f"{path.name}: no {sums.name} beside it")
        if not is_as_summed(path, sums):
            raise ValueError(f"{path.name}: not the file that {sums.name} is of")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for one in found:
        unpack(releases / one[0], target / one["tag"])
    # Whoever asks for the newest does not mean a candidate, unless there are only such.
    newest = next((one["tag"] for one in found if not one["rest"]), found[0]["tag"])
    shutil.copytree(target / newest, target / "latest")
    tags = [one["tag"] for one in found]
    (target / "versions.json").write_text(
        json.dumps({"latest": newest, "versions": tags}, indent=1) + "\n"
    )
    for name in ("sitemap.xml", "robots.txt", "llms.txt"):
        if (target / "latest" / name).is_file():
            shutil.copy(target / "latest" / name, target / name)
    (target / "index.html").write_text(LEADS_ON)
    (target / ".nojekyll").touch()
    return tags


def unpack(path: Path, target: Path) -> None:
    """The pages in a zip, without the one folder that they are in."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            _, _, inside = entry.filename.partition("/")
            place = target / inside
            if not inside or entry.is_dir():
                continue
            if not place.resolve().is_relative_to(target.resolve()):
                raise ValueError(f"{path.name}: {entry.filename} leads out of it")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(archive.read(entry))


def main(arguments: list[str]) -> int:
    """The command line."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(*lay_out(*map(Path, arguments)))
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
