"""Packages in miniature, and an environment to install them into, without a network."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path


class Environment:
    """A virtual environment of its own, with pip and nothing else."""

    def __init__(self, folder: Path):
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *args: str, **more: str) -> subprocess.CompletedProcess:
        """Its Python in a bare folder; `more` are environment variables, such as pip reads."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
        kept |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
        kept |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | more
        command = [self.python, *args]
        return subprocess.run(
            command, cwd=self.folder, env=kept, capture_output=True, text=True, timeout=300
        )

    def pip(self, *args: str, **more: str) -> subprocess.CompletedProcess:
        return self.run("-m", "pip", *args, **more)

    def versions(self) -> dict[str, str]:
        """What is installed."""
        code = (
            "import importlib.metadata as m\nfor d in m.distributions(): print(d.name, d.version)"
        )
        done = self.run("-c", code)
        return dict(line.split() for line in done.stdout.splitlines())


def make_wheel(
    folder: Path, name: str, version: str, requires: Iterable[str] = (), module: str = ""
) -> Path:
    """A wheel that holds an empty module."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{module or name}/__init__.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {one}\n" for one in requires),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path
