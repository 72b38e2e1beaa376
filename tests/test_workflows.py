"""The workflows: few permissions, no secret, pinned in one way; and their steps, run here."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FLOWS = {path.stem: yaml.safe_load(path.read_text())
         for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}  # fmt: skip
PAGES = FLOWS["pages"]["jobs"]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
TOY = {"GIT_AUTHOR_NAME": "toy", "GIT_AUTHOR_EMAIL": "toy@localhost",
       "GIT_COMMITTER_NAME": "toy", "GIT_COMMITTER_EMAIL": "toy@localhost"}  # fmt: skip


def steps(flow: str):
    for name, job in FLOWS[flow]["jobs"].items():
        for step in job["steps"]:
            yield name, step


@pytest.mark.parametrize("flow", FLOWS)
class TestEachWorkflow:
    def test_it_may_read_and_each_job_says_what_more(self, flow):
        assert FLOWS[flow]["permissions"] == {"contents": "read"}
        wider = {name: job["permissions"] for name, job in FLOWS[flow]["jobs"].items()
                 if "permissions" in job}  # fmt: skip
        expected = {
            "release": {"contents": "write"},
            "site": {"contents": "read", "pages": "write", "id-token": "write"},
        }
        assert wider == (expected if flow == "pages" else {})

    def test_it_needs_no_secret(self, flow):
        """So that it runs on a fork's pull request as well."""
        text = (ROOT / f".github/workflows/{flow}.yml").read_text()
        assert "secrets." not in text and "pull_request_target" not in text

    def test_actions_are_githubs_own_and_pinned_to_their_major_version(self, flow):
        used = [step["uses"] for _, step in steps(flow) if "uses" in step]
        assert used
        for name in used:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", name), name

    def test_one_version_of_each_action(self, flow):
        versions = {}
        for other in FLOWS:
            for _, step in steps(other):
                if "uses" in step:
                    name, _, version = step["uses"].partition("@")
                    versions.setdefault(name, set()).add(version)
        assert {name: len(got) for name, got in versions.items() if len(got) > 1} == {}

    def test_nothing_that_others_can_name_is_pasted_into_a_script(self, flow):
        """A branch may be called anything; values come by the environment."""
        for _, step in steps(flow):
            assert "${{" not in step.get("run", ""), step

    def test_no_job_hangs_for_hours(self, flow):
        assert all(job["timeout-minutes"] <= 60 for job in FLOWS[flow]["jobs"].values())

    def test_credentials_stay_only_where_something_is_pushed(self, flow):
        for job, step in steps(flow):
            if step.get("uses", "").startswith("actions/checkout"):
                kept = step.get("with", {}).get("persist-credentials", True)
                assert kept == (job == "release"), job


def test_pages_come_from_records_on_tags_and_are_shown_before():
    events = FLOWS["pages"][True]  # "on", to YAML
    assert events["push"] == {"tags": ["v[0-9]*"]}
    assert {"pull_request", "schedule", "workflow_dispatch"} <= set(events)
    runs = [step["run"] for step in PAGES["build"]["steps"] if "run" in step]
    assert 'make release TAG="$TAG"' in runs and "make links" in runs
    # No call that would execute a chapter.
    assert not [
        run for run in runs if re.search(r"make (book|run|test|record|nbval)|\.ci/run", run)
    ]
    shown = [step["with"]["path"] for step in PAGES["build"]["steps"]
             if step.get("uses", "").startswith("actions/upload-artifact")]  # fmt: skip
    assert shown == ["_build/html", "_build/release"]
    assert "github.ref_type == 'tag'" in PAGES["release"]["if"]
    links = next(step for step in PAGES["build"]["steps"] if step.get("run") == "make links")
    assert "schedule" in links["if"] and "pull_request" not in links["if"]


def test_make_release_executes_no_chapter():
    recipe = re.search(r"^release:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert recipe[1].split("\n")[:-1] == [
        "\t@$(EBM) html",
        '\t@$(EBM) release $(if $(TAG),--tag "$(TAG)")',
    ]


def test_both_workflows_run_every_week():
    for flow in ("book", "pages"):
        (when,) = FLOWS[flow][True]["schedule"]
        assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", when["cron"])


GH = """\
#!/bin/sh
echo "$@" >>"$SAID"
case "$1 $2" in
  "release view")
    case "$3" in
      v9.9.9) exit 1 ;;
      by-hand) echo notes.pdf ;;
      *) echo "small-book-$3.zip" ;;
    esac ;;
  "release list") printf 'v0.2.0\\nby-hand\\nv0.1.0\\n' ;;
  "release download") touch "$5/$3" ;;
esac
"""


@pytest.fixture
def runner(tmp_path):
    """Runs a step as GitHub does, with a `gh` that only says what it was asked."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gh"
    program.write_text(GH)
    program.chmod(0o755)

    def run(script: str, **more: str) -> tuple[subprocess.CompletedProcess, list[str]]:
        said = tmp_path / "said"
        said.write_text("")
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=tmp_path, text=True, capture_output=True,
            env=os.environ | TOY | {"PATH": path, "SAID": str(said)} | more,
        )  # fmt: skip
        return done, said.read_text().splitlines()

    return run


def script_of(job: str, word: str) -> str:
    (found,) = [step["run"] for step in PAGES[job]["steps"] if word in step.get("run", "")]
    return found


@pytest.mark.parametrize("tag, creates", [("v9.9.9", True), ("v0.1.0", False)])
def test_a_release_is_made_once_and_filled_again(runner, tmp_path, tag, creates):
    """So that a run that failed half-way can be run again."""
    folder = tmp_path / "_build/release"
    folder.mkdir(parents=True)
    for name in ("a.zip", "a.sha256", "a.tar.gz", "a.whl", "CHANGES.md"):
        (folder / name).touch()
    done, said = runner(script_of("release", "gh release create"), TAG=tag)
    assert done.returncode == 0, done.stderr
    kinds = [" ".join(line.split()[:2]) for line in said]
    assert kinds == ["release view", *["release create"] * creates, "release upload"]
    files = [f"_build/release/{name}" for name in
             ("a.zip", "a.sha256", "a.tar.gz", "a.whl", "CHANGES.md")]  # fmt: skip
    assert said[-1].split() == ["release", "upload", tag, "--clobber", *files]
    if creates:
        assert "--verify-tag" in said[1] and "--notes-file _build/release/CHANGES.md" in said[1]


def test_sums_are_checked_before_anything_is_published(runner, tmp_path):
    folder = tmp_path / "_build/release"
    folder.mkdir(parents=True)
    (folder / "a.zip").write_text("a")
    (folder / "a.sha256").write_text("0" * 64 + "  a.zip\n")
    done, _ = runner(script_of("release", "sha256sum"))
    assert done.returncode != 0
    runs = [step.get("run", step.get("uses")) for step in PAGES["release"]["steps"]]
    assert [i for i, run in enumerate(runs) if "sha256sum" in run] == [2]


def test_the_site_takes_all_releases_that_have_pages(runner, tmp_path):
    done, said = runner(script_of("site", "gh release download"))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "_build/releases").iterdir()) == [
        "v0.1.0", "v0.2.0"
    ]  # fmt: skip
    (asked,) = [line for line in said if line.startswith("release download v0.1.0")]
    patterns = asked.split("--pattern ")[1:]
    assert [one.strip() for one in patterns] == ["*-book-v*.zip", "*-v*.sha256"]


class TestNotebooks:
    """`tools/notebooks.sh`, with a clone and an origin."""

    @pytest.fixture
    def clone(self, tmp_path) -> Path:
        origin, clone = tmp_path / "origin.git", tmp_path / "clone"
        self.git(tmp_path, "init", "--quiet", "--bare", str(origin))
        self.git(tmp_path, "clone", "--quiet", str(origin), str(clone))
        (clone / "README.md").write_text("main\n")
        self.git(clone, "add", "-A")
        self.git(clone, "commit", "--quiet", "-m", "main")
        self.git(clone, "push", "--quiet", "origin", "HEAD:refs/heads/main")
        return clone

    def git(self, folder: Path, *args: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True,
                              env=os.environ | TOY, check=True)  # fmt: skip
        return done.stdout

    def lay(self, clone: Path, tag: str, **files: str) -> subprocess.CompletedProcess:
        made = clone.parent / "made"
        shutil.rmtree(made, ignore_errors=True)
        files = {f"{tag}/book/{name}.ipynb": text for name, text in files.items()}
        for name, text in {".binder/environment.yml": tag, **files}.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_text(text)
        bare = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        bare |= {"HOME": str(clone.parent)}  # a runner has no name for git
        command = ["sh", str(ROOT / "tools/notebooks.sh"), str(made), tag]
        return subprocess.run(command, cwd=clone, env=bare, capture_output=True, text=True)

    def there(self, clone: Path) -> list[str]:
        origin = clone.parent / "origin.git"
        return self.git(origin, "ls-tree", "-r", "--name-only", "notebooks").split()

    def test_each_release_has_its_folder(self, clone):
        done = self.lay(clone, "v0.1.0", a="1", b="1")
        assert done.returncode == 0, done.stderr
        assert self.there(clone) == [".binder/environment.yml", "v0.1.0/book/a.ipynb",
                                     "v0.1.0/book/b.ipynb"]  # fmt: skip
        # Another one, from another clone; then the same one again, with a page less.
        other = clone.parent / "other"
        self.git(clone.parent, "clone", "--quiet", "--depth", "1", "--branch", "main",
                 (clone.parent / "origin.git").as_uri(), str(other))  # fmt: skip
        assert self.lay(other, "v0.2.0", a="2", c="2").returncode == 0
        assert self.lay(other, "v0.2.0", a="3").returncode == 0
        assert self.there(clone) == [".binder/environment.yml", "v0.1.0/book/a.ipynb",
                                     "v0.1.0/book/b.ipynb", "v0.2.0/book/a.ipynb"]  # fmt: skip
        origin = clone.parent / "origin.git"
        assert self.git(origin, "show", "notebooks:v0.2.0/book/a.ipynb") == "3"
        assert self.git(origin, "show", "notebooks:.binder/environment.yml") == "v0.2.0"
        # The branch shares nothing with the sources, and those are as they were.
        assert self.git(origin, "ls-tree", "--name-only", "main") == "README.md\n"
        assert self.git(clone, "worktree", "list").count("\n") == 1
        assert self.git(clone, "status", "--porcelain") == ""

    def test_nothing_new_is_no_commit(self, clone):
        self.lay(clone, "v0.1.0", a="1")
        before = self.git(clone.parent / "origin.git", "rev-parse", "notebooks")
        done = self.lay(clone, "v0.1.0", a="1")
        assert done.returncode == 0 and "as they are" in done.stdout
        assert self.git(clone.parent / "origin.git", "rev-parse", "notebooks") == before

    def test_a_tag_without_notebooks_is_refused(self, clone):
        self.lay(clone, "v0.1.0", a="1")
        command = ["sh", str(ROOT / "tools/notebooks.sh"), "../made", "v0.2.0"]
        done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
        assert done.returncode == 1 and "no v0.2.0" in done.stderr


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_forms(path):
    """What GitHub asks of one; it shows none that is wrong, and says so nowhere."""
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert set(form) <= {"name", "description", "title", "labels", "body"}
    assert form["name"] and form["description"] and form["body"]
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[\w-]+", one) for one in ids)
    keys = {
        "markdown": {"value"},
        "input": {"label", "description", "placeholder", "value"},
        "textarea": {"label", "description", "placeholder", "value", "render"},
        "dropdown": {"label", "description", "options", "multiple", "default"},
    }
    labels = []
    for part in form["body"]:
        assert set(part) <= {"type", "id", "attributes", "validations"}
        assert set(part["attributes"]) <= keys[part["type"]]
        assert set(part.get("validations", {})) <= {"required"}
        if part["type"] == "markdown":
            assert part["attributes"]["value"]
        else:
            labels.append(part["attributes"]["label"])
    assert len(labels) == len(set(labels))


def test_the_form_for_a_number_asks_for_the_file_of_results():
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/number.yml").read_text())
    parts = {part.get("id"): part for part in form["body"]}
    asked = parts["results"]
    assert asked["validations"] == {"required": True} and asked["type"] == "textarea"
    # With `render` nothing could be dropped there.
    assert "render" not in asked["attributes"]
    assert "results/<chapter>.json" in asked["attributes"]["description"]
    required = {name for name, part in parts.items()
                if part.get("validations", {}).get("required")}  # fmt: skip
    assert {"claim", "results", "call", "machine"} <= required
    told = (ROOT / "CONTRIBUTING.md").read_text()
    assert form["name"] in told and "results/inference.json" in told


def test_contributing_names_what_is_there():
    told = (ROOT / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", told))
    assert {"diff", "cite", "release", "links", "test", "html"} <= named <= targets
    for link in re.findall(r"\]\(([^)#]+)", told):
        assert (ROOT / link).exists(), link
    (anchor,) = re.findall(r"README\.md#([\w-]+)", told)
    heads = re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert anchor in [head.lower().replace(" ", "-") for head in heads]
