"""The shape of the package, read from its sources: who imports whom, and what is written nowhere."""

import ast
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from xmodal.cards import load
from xmodal.data import DATA
from xmodal.losses import LOSSES
from xmodal.methods import METHODS
from xmodal.models import BUILDERS, ENCODERS
from xmodal.recipes import RECIPES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "xmodal"
FILES = sorted(PACKAGE.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())

BASIS = {
    "types",
    "devices",
    "names",
    "flags",
    "method",
    "errors",
    "cards",
    "files",
    "version",
    "collectives",
    "seeding",
}
BRICKS = {"losses", "metrics", "data", "models"}
OUTLETS = {"reports", "export", "deploy"}
BELOW_STUDY = BASIS | BRICKS | {"diagnostics", "methods", "engine"} | OUTLETS
MAY_IMPORT = {  # part → parts that it may import; itself it always may
    **dict.fromkeys(BASIS, BASIS),
    **dict.fromkeys(BRICKS, BASIS),
    "diagnostics": BASIS | BRICKS,
    "methods": BASIS | BRICKS | {"diagnostics"},
    "engine": BASIS | BRICKS,
    "reports": BASIS | {"models"},
    "export": BASIS | {"models", "deploy"},
    "deploy": BASIS | {"models"},
    "teachers": BASIS | BRICKS | {"deploy"},
    "study": BELOW_STUDY | {"teachers"},
    "recipes": BELOW_STUDY | {"study", "teachers"},
    "api": BELOW_STUDY | {"study", "recipes", "teachers"},
    "sklearn": BELOW_STUDY | {"study", "api"},
    "cli": BELOW_STUDY | {"study", "recipes", "teachers"},
}


def part_of(module):
    """``xmodal.data.base`` → ``data``; the package itself → ``""``."""
    return (module.split(".") + [""])[1]


def imports(source, module=""):
    """All modules of the package that a source imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # relative imports are counted from the package of the module
                base = ".".join([*module.split(".")[: -node.level], *([node.module] if node.module else [])])
            else:
                base = node.module
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "xmodal" else {base}
    return {name for name in found if name.split(".")[0] == "xmodal"}


def forbidden_imports(source, module):
    """Imports against the direction of the levels."""
    part = part_of(module)
    allowed = MAY_IMPORT[part] | {part}
    return sorted(name for name in imports(source, module) if part_of(name) not in allowed)


def forbidden_calls(source):
    """Ways to execute what a file brings along."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            checked = {"pickle", "joblib"}  # below: what is used of them
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in UNPICKLERS - checked]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            # joblib also runs tasks in processes of our own
            if not (node.module.split(".")[0] == "joblib" and {alias.name for alias in node.names} <= TASKS):
                found.append(node.module)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "joblib":
            found += [f"joblib.{node.attr}"] if node.attr not in TASKS else []
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            found += [f"pickle.{node.attr}"] if not node.attr.endswith("Error") else []  # errors may be caught
        elif isinstance(node, ast.Call):
            called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in ("eval", "exec", "compile", "__import__"):
                found.append(called)
            elif called == "torch.load" and given.get("weights_only") != "True":
                found.append("torch.load")
            elif called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
                found.append("np.load")
    return found


TASKS = {"Parallel", "delayed", "parallel_config", "cpu_count", "get_reusable_executor", "TerminatedWorkerError"}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def training_by_hand(source):
    """Signs that a recipe trains by itself instead of calling the engine."""
    tree, found = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (node.attr == "backward" or ast.unparse(node) == "torch.optim"):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Name | ast.alias) and "ptimis" in (
            getattr(node, "id", "") or getattr(node, "name", "")
        ):
            found.append("Optimisers")
        elif isinstance(node, ast.For | ast.comprehension) and "batch" in ast.unparse(node.target):
            found.append(f"for {ast.unparse(node.target)}")
        elif isinstance(node, ast.ImportFrom | ast.Import) and "torch.optim" in ast.unparse(node):
            found.append("torch.optim")
    return found


def machine_paths(text):
    """Places that exist on one machine alone."""
    places = [str(ROOT), str(Path.home())]
    found = [place for place in places if re.search(re.escape(place) + r"(?![\w.])", text)]
    return found + re.findall(r"/home/\w+|/Users/\w+|[A-Z]:\\\\\w+", text)


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@every_file
def test_imports_point_one_way(path):
    module = module_of(path)

    if part_of(module):  # the package itself lists public names of every part
        assert forbidden_imports(path.read_text(), module) == []


def forbidden_names(source, module):
    """Modules against the direction of the levels that stand in strings: paths of cards and of files in packages."""
    strings = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    names = {match[1] for text in strings if isinstance(text, str) and (match := NAME_OF_MODULE.fullmatch(text))}
    part = part_of(module)
    return sorted(name for name in names if part_of(name) not in MAY_IMPORT[part] | {part})


NAME_OF_MODULE = re.compile(r"(xmodal(?:\.\w+)+)(?::[\w./]+)?")


@every_file
def test_modules_that_are_named_in_strings_point_one_way(path):
    module = module_of(path)

    if part_of(module):
        assert forbidden_names(path.read_text(), module) == []


@pytest.mark.parametrize(
    ("source", "module", "names"),
    [
        ("resources.files('xmodal.recipes')", "xmodal.study.references", ["xmodal.recipes"]),
        ("CARD = 'xmodal.recipes.r:run'", "xmodal.data", ["xmodal.recipes.r"]),
        ("FIGURES = 'xmodal.recipes:references/r.json'", "xmodal.study.references", ["xmodal.recipes"]),
        ("FIGURES = 'xmodal.recipes:references/r.json'", "xmodal.recipes", []),
    ],
)
def test_the_check_of_names_in_strings_finds_wrong_ones(source, module, names):
    assert forbidden_names(source, module) == names


def test_every_part_of_the_package_has_a_level():
    parts = {part_of(module_of(path)) for path in FILES} - {""}

    assert parts <= MAY_IMPORT.keys() and BASIS <= parts


def test_the_levels_hold_no_cycle_between_parts():
    edges = {
        (part_of(module_of(path)), part_of(name))
        for path in FILES
        for name in imports(path.read_text(), module_of(path))
        if part_of(module_of(path)) not in ("", part_of(name))
    }

    waiting = {part for edge in edges for part in edge}
    while free := {part for part in waiting if not any(a == part and b in waiting for a, b in edges)}:
        waiting -= free
    assert waiting == set()


def module_paths(source):
    """Modules of the package that a source names in strings, as cards do: ``xmodal.data.digits:load``."""
    strings = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return {match[1] for text in strings if isinstance(text, str) and (match := CARD_PATH.fullmatch(text))}


CARD_PATH = re.compile(r"(xmodal(?:\.\w+)+):\w+")


def file_edges(root):
    """File → files that it imports or names in a card, all as paths below ``root``; the folder holds the package.

    A card's path counts where it leaves the folder of its list: a list that names files of its own folder is a
    registry, and they may import it.
    """
    files = {module: path for path in (root / "xmodal").rglob("*.py") for module in [module_below(root, path)]}
    edges = {}
    for module, path in files.items():
        source = path.read_text()
        names = imported_names(source, module, files)
        home = path.parent if path.name == "__init__.py" else None
        for name in module_paths(source) & files.keys():
            if home is None or home not in files[name].parents:
                names.add(name)
        edges[module] = names - {module, "xmodal"}
    return edges


def module_below(root, path):
    """``xmodal/data/base.py`` → ``xmodal.data.base``."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(source, module, files):
    """Those of ``files`` that a source imports; ``from package import name`` means the file of that name, if any."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            inner = {alias.name: f"{base}.{alias.name}" for alias in node.names}
            names |= {path if path in files else base for path in inner.values()}
    return names & set(files)


def circles(edges):
    """Modules that can be reached from themselves, each group sorted."""
    reach = {module: set(names) for module, names in edges.items()}
    growing = True
    while growing:
        growing = False
        for module, names in reach.items():
            further = names.union(*(reach.get(name, set()) for name in names))
            growing |= len(further) > len(names)
            reach[module] = further
    loops = {module for module, names in reach.items() if module in names}
    return sorted(
        {tuple(sorted(other for other in loops if other in reach[one] and one in reach[other])) for one in loops}
    )


def test_no_circle_between_files_cards_included():
    assert circles(file_edges(ROOT)) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a": "from xmodal import b", "b": "import xmodal.a"}, [("xmodal.a", "xmodal.b")]),
        (
            {"a": "from xmodal.b import x", "b": "from xmodal.c import x", "c": "def f():\n    from xmodal.a import y"},
            [("xmodal.a", "xmodal.b", "xmodal.c")],
        ),
        (
            {"data/__init__": "CARD = 'xmodal.recipes.r:evaluate'", "recipes/r": "from xmodal.data import CARD"},
            [("xmodal.data", "xmodal.recipes.r")],
        ),
        ({"data/__init__": "CARD = 'xmodal.data.d:load'", "data/d": "from xmodal.data import CARD"}, []),
        ({"a": "from xmodal.b import x", "b": "import torch"}, []),
    ],
    ids=["two files", "three files, one import inside a function", "a card", "a list of its own folder", "one way"],
)
def test_the_check_of_circles_finds_one_that_is_put_in(tmp_path, files, expected):
    for name, source in files.items():
        path = tmp_path / "xmodal" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    assert circles(file_edges(tmp_path)) == expected


def test_no_folder_holds_more_than_24_files():
    crowded = {
        folder.relative_to(ROOT).as_posix(): count
        for folder in {path.parent for path in FILES}
        if (count := len(list(folder.glob("*.py")))) > 24
    }

    assert crowded == {}


@pytest.mark.parametrize(
    ("source", "module", "found"),
    [
        ("from xmodal.engine.fit import fit", "xmodal.methods.kd", ["xmodal.engine.fit"]),
        ("def f():\n    import xmodal.methods.kd", "xmodal.engine.fit", ["xmodal.methods.kd"]),
        ("if TYPE_CHECKING:\n    from xmodal.data import base", "xmodal.models.small", ["xmodal.data"]),
        ("from xmodal import method, losses", "xmodal.types", ["xmodal.losses"]),
        ("from ..models import small", "xmodal.losses.task", ["xmodal.models"]),
        ("from .reduce import masked_mean", "xmodal.losses.task", []),
        ("from xmodal.diagnostics import saliency", "xmodal.engine.fit", ["xmodal.diagnostics"]),
        ("from xmodal.diagnostics import saliency", "xmodal.methods.kd", []),
        ("import torch\nfrom xmodal.method import Method", "xmodal.methods.kd", []),
        ("from xmodal.cli import main", "xmodal.recipes.distill", ["xmodal.cli"]),
    ],
)
def test_the_check_of_imports_finds_wrong_ones(source, module, found):
    assert forbidden_imports(source, module) == found


@every_file
def test_nothing_that_a_file_brings_along_is_executed(path):
    assert forbidden_calls(path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle\npickle.loads(text)", ["pickle.loads"]),
        ("from pickle import load", ["pickle"]),
        ("import dill", ["dill"]),
        ("from joblib import load", ["joblib"]),
        ("import joblib\njoblib.load(path)\njoblib.cpu_count()", ["joblib.load"]),
        ("from joblib import Parallel, delayed", []),
        ("torch.load(path)", ["torch.load"]),
        ("torch.load(path, weights_only=False)", ["torch.load"]),
        ("torch.load(path, weights_only=True)", []),
        ("np.load(path)", ["np.load"]),
        ("np.load(path, allow_pickle=False)", []),
        ("eval(text)\nexec(text)", ["eval", "exec"]),
        ("network.eval()", []),
    ],
)
def test_the_check_of_calls_finds_wrong_ones(source, found):
    assert forbidden_calls(source) == found


@pytest.mark.parametrize("path", sorted((PACKAGE / "recipes").rglob("*.py")), ids=lambda path: path.name)
def test_recipes_leave_training_to_the_engine(path):
    assert training_by_hand(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "loss.backward()",
        "torch.optim.Adam(parameters)",
        "from torch.optim import Adam",
        "from xmodal.engine.optim import Optimisers",
        "for batch in loader:\n    pass",
        "for number, batch in enumerate(loader):\n    pass",
    ],
)
def test_the_check_of_recipes_finds_training_by_hand(source):
    assert training_by_hand(source)


@every_file
def test_every_module_introduces_itself(path):
    text = ast.get_docstring(ast.parse(path.read_text()))

    assert text and path.stat().st_size < 30_000  # a file that grows beyond this wants to be two


@every_file
def test_no_file_names_a_place_of_one_machine(path):
    assert machine_paths(path.read_text()) == []


def test_the_check_of_places_finds_one():
    assert machine_paths(f'DATA = "{ROOT}/data"') and machine_paths("open('/home/someone/x')")
    assert machine_paths("root / 'home' and runs/kd-001") == []


CARDS = {f"{cards.kind}: {name}": card for cards in (METHODS, LOSSES, DATA, RECIPES) for name, card in cards.items()}


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_every_path_of_a_card_can_be_imported(card):
    assert callable(card.load())
    for field in ("settings", "make", "prepare", "check", "evaluate", "evaluation"):
        if path := getattr(card, field, ""):
            assert callable(load(path)), field
    if references := getattr(card, "references", ""):
        package, _, name = references.partition(":")
        assert (resources.files(package) / name).is_file()


@pytest.mark.parametrize("name", [*ENCODERS, *BUILDERS])
def test_every_network_of_a_list_can_be_imported(name):
    assert callable(load({**ENCODERS, **BUILDERS}[name]))


def test_listing_and_help_need_no_torch():
    lists = "xmodal, xmodal.methods, xmodal.losses, xmodal.data, xmodal.models, xmodal.recipes, xmodal.cards"
    code = (
        f"import sys, {lists}\nassert not {{'torch', 'sklearn', 'lightning_fabric'}} & set(sys.modules)\nprint('light')"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert done.stdout == "light\n", done.stderr


def test_the_flags_of_recipes_and_data_need_no_torch():
    code = (
        "import sys\nfrom xmodal.cards import load\nfrom xmodal.data import DATA\nfrom xmodal.recipes import RECIPES\n"
        "for card in DATA.values():\n    load(card.settings)\n"
        "for card in RECIPES.values():\n    card.load()\n    card.evaluation and load(card.evaluation)\n"
        "assert 'torch' not in sys.modules\nprint('light')"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert done.stdout == "light\n", done.stderr


def test_importing_the_package_adds_little_to_importing_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import torch; import xmodal"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )

    lines = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if "|" in line]
    seconds = {name.strip(): int(cumulative) / 1e6 for _, cumulative, name in lines if cumulative.strip().isdigit()}
    assert seconds["xmodal"] < 0.3 and seconds["torch"] > seconds["xmodal"]
