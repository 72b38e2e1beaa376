"""A book in miniature, so that the pipeline is tested whole and in seconds."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CHAPTER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# {title}

Some prose, and the number {{glue:text}}`{topic}/mean`.

```{{code-cell}}
:tags: [parameters]

profile = None  # "quick" or "full"
seed = 0
device = None
n = None  # draws
```

```{{code-cell}}
import torch

from ebmbook import ledger

run = ledger.start("{name}", profile, seed, device)
n = n or run.pick(quick=100, full=400)
draws = torch.randn(n, generator=run.generator("draws"), device=run.device)
```

```{{code-cell}}
_ = ledger.measure("{topic}/mean", draws.mean(), draws.std() / n**0.5)
```

```{{code-cell}}
:tags: [nbval-check-output]

ledger.verdicts()
```

```{{ledger}} {name}
```
"""

CLAIMS = """\
- id: claim-{topic}
  where: "1"
  says: The mean of $n$ draws is small.
  verdict: reproduced
  finding: It is.
  checks:
    - measure: {topic}/mean
      equals: 0
      tolerance: 1
      because: ten standard errors
- id: eq-{number}
  where: "1"
  says: Three lines are enough.
"""


STAND_IN = """\
import json, os, sys, time
from pathlib import Path

exec(os.environ.get("INSTEAD", ""))
draft = Path(sys.argv[1])
results = {"chapter": draft.stem, "profile": os.environ["EBMREF_PROFILE"], "seed": 0}
results |= {"measures": {}}
draft.with_suffix(".json").write_text(json.dumps(results))
"""


@dataclass
class Book:
    """A small book in a folder of its own, driven through the command line like the real one."""

    root: Path

    def source(self, name: str) -> Path:
        return self.root / "book" / f"{name}.md"

    def record(self, name: str) -> Path:
        return self.root / "book" / f"{name}.ipynb"

    def claims(self, name: str) -> Path:
        return self.root / "book" / "claims" / f"{name}.yml"

    def run_folder(self, variant: str = "quick") -> Path:
        return self.root / "_build" / "run" / variant

    def results(self, name: str, variant: str = "quick") -> Path:
        return self.run_folder(variant) / "results" / f"{name}.json"

    def edit(self, path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "ebmbook.press", *args]

    def environment(self) -> dict[str, str]:
        kept = {key: got for key, got in os.environ.items() if not key.startswith("EBMREF_")}
        return kept | {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}

    def call(self, *args: str) -> subprocess.CompletedProcess:
        """`python -m ebmbook.press ARGS`, in the book's folder."""
        return self.shell(*self.command(*args))

    def shell(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            command,
            cwd=cwd or self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )


def at(root: Path, address: str) -> None:
    """Give the project in a folder an address, or with "" none."""
    path = root / "pyproject.toml"
    text = re.sub(r"^\[project\.urls\]\n(?:.+\n)*", "", path.read_text(), flags=re.MULTILINE)
    if address:
        text += f'\n[project.urls]\nRepository = "{address}"\n'
    path.write_text(text)


def make_book(root: Path) -> Book:
    """Lay out a two-chapter book with the real tool chain and package."""
    for folder in ("ebmbook", "ebmref", "book/_ext", "book/_static", "book/_templates"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, root / folder, ignore=ignore)
    for file in ("_config.yml", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / file, root / file)
    at(root, "")
    names = {"01-one": "one", "02-two": "two"}
    toc = "format: jb-book\nroot: book/index\nparts:\n  - numbered: true\n    chapters:\n"
    (root / "book" / "claims").mkdir()
    for number, (name, topic) in enumerate(names.items(), start=1):
        text = CHAPTER.format(name=name, topic=topic, title=f"Chapter {topic}")
        (root / "book" / f"{name}.md").write_text(text)
        toc += f"      - file: book/{name}.ipynb\n"
        claims = CLAIMS.format(topic=topic, number=number)
        (root / "book" / "claims" / f"{name}.yml").write_text(claims)
    (root / "_toc.yml").write_text(toc)
    (root / "book" / "index.md").write_text("# Small\n\n```{ledger} all\n```\n")
    (root / "book" / "references.bib").write_text("")
    return Book(root)
