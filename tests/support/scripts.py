"""Runs the mathematics of a page's script, so that it is held to the package's."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

try:
    import quickjs
except ImportError:  # an environment from before it was pinned
    quickjs = None

ROOT = Path(__file__).resolve().parents[2]
LIVE = ROOT / "book" / "_static" / "live"
NODE = shutil.which("node")


def evaluate(name: str, expression: str):
    """The value of an expression over `laws`, what `book/_static/live/NAME.js` exports.

    By way of JSON: what is not finite comes back as None.
    """
    if quickjs is None and NODE is None:
        pytest.skip("neither quickjs-ng (pinned in requirements.lock) nor node is here")
    code = (
        "globalThis.module = { exports: {} };\n"
        + (LIVE / f"{name}.js").read_text(encoding="utf-8")
        + f"\nconst laws = module.exports;\nJSON.stringify({expression});"
    )
    if quickjs is not None:
        return json.loads(quickjs.Context().eval(code))
    asked = f"process.stdout.write((0, eval)({json.dumps(code)}))"
    done = subprocess.run([NODE, "-"], input=asked, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
