"""How the code is laid out: small modules, no private door between them, one of each machine."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("ebmref", "ebmbook")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
OURS = [name for name in MODULES if name.split(".")[0] == "ebmref"]
TESTS = {path.stem: ast.parse(path.read_text()) for path in sorted((ROOT / "tests").rglob("*.py"))}
LINES, LINES_KERNELS = 500, 600


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_ours(name: str | None) -> bool:
    return bool(name) and name.split(".")[0] in ("ebmref", "ebmbook")


def imports(tree: ast.AST):
    """Each import of ours: the full name, and the name it has here."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if is_ours(alias.name):
                    yield alias.name, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom) and is_ours(node.module):
            for alias in node.names:
                yield f"{node.module}.{alias.name}", alias.asname or alias.name


# Public names of every named tuple; the underscore keeps them apart from its fields.
TUPLES = ("_fields", "_field_defaults", "_replace", "_asdict", "_make")


def private_uses(tree: ast.AST) -> list[str]:
    """Private names of other modules: imported, or reached for through what was imported."""
    names = {here: full for full, here in imports(tree)}
    found = [full for full in names.values() if any(map(is_private, full.split(".")))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in TUPLES:
            base = ast.unparse(node.value)
            for here, full in names.items():
                if base == here or base.startswith(f"{here}."):
                    found.append(f"{full}{base.removeprefix(here)}.{node.attr}")
    return sorted(found)


def calls(tree: ast.AST, *wanted: str) -> bool:
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func) in wanted for node in ast.walk(tree)
    )


def those(holds, names=tuple(MODULES)) -> list[str]:
    return [name for name in names if holds(TREES[name])]


@pytest.mark.parametrize("name", OURS)
def test_a_module_is_read_in_one_sitting(name):
    most = LINES_KERNELS if name == "ebmref.samplers.kernels" else LINES
    assert len(MODULES[name].read_text().splitlines()) <= most


@pytest.mark.parametrize("name", MODULES)
def test_no_private_name_of_another_module(name):
    assert private_uses(TREES[name]) == []


@pytest.mark.parametrize("name", TESTS)
def test_a_test_uses_private_names_of_the_module_it_tests_alone(name):
    """Of the package; tests of the book's machinery are of several modules at once."""
    tested = name.removeprefix("test_")
    others = [use for use in private_uses(TESTS[name]) if tested not in use.split(".")]
    assert [use for use in others if use.startswith("ebmref")] == []


def test_what_is_private_is_seen():
    tree = ast.parse(
        "from ebmref import gan\nfrom ebmref.gan import _x\nimport ebmref.ddls\n"
        "gan._y(1)\nebmref.ddls.model._z\nself._fine\ngan.Game.__init__\n"
    )
    assert private_uses(tree) == ["ebmref.ddls.model._z", "ebmref.gan._x", "ebmref.gan._y"]


@pytest.mark.parametrize("name", OURS)
def test_the_package_knows_nothing_of_the_book(name):
    assert [full for full, _ in imports(TREES[name]) if full.startswith("ebmbook")] == []


def test_no_circle_of_imports():
    """Wherever in a module an import stands."""

    def needs(name: str) -> set[str]:
        found = set()
        for full, _ in imports(TREES[name]):
            module = full if full in MODULES else full.rpartition(".")[0]
            assert module in MODULES, f"{name} imports {full}, which is not there"
            found.add(module)
        return found - {name}

    edges = {name: needs(name) for name in MODULES}
    while edges:
        free = {name for name, needed in edges.items() if not needed & edges.keys()}
        assert free, f"a circle among {sorted(edges)}"
        edges = {name: needed for name, needed in edges.items() if name not in free}


def loops(tree: ast.AST) -> bool:
    """Whether something is advanced while its count of steps is below a number."""
    return any(
        isinstance(node, ast.While) and ".step" in ast.unparse(node.test) for node in ast.walk(tree)
    )


def steps_optimisers(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "step"
        and not node.args
        for node in ast.walk(tree)
    )


def test_one_loop_one_save_one_load_one_atomic_write():
    assert those(loops) == ["ebmref.training"]
    assert those(steps_optimisers) == ["ebmref.training"]
    assert those(lambda tree: calls(tree, "torch.save")) == ["ebmref.training"]
    assert those(lambda tree: calls(tree, "torch.load")) == ["ebmref.training"]
    assert those(lambda tree: calls(tree, "tempfile.mkstemp", "tempfile.NamedTemporaryFile")) == [
        "ebmref.files"
    ]
    assert those(lambda tree: calls(tree, "os.replace"), OURS) == ["ebmref.files"]
