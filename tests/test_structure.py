"""The shape of the house: which way imports run, how long files are, which names are taken, and that commands work."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orpo.command.recipes import recipe_values
from orpo.command.settings import build_settings, is_settings_class, parse_settings

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "orpo"
COMMANDS = sorted(file for file in PACKAGE.glob("*.py") if file.stem != "__init__")
RECIPES = sorted(file for file in (REPOSITORY / "recipes").rglob("*.yaml") if file.parent.name != "accelerate")

# A folder may import from folders with a lower number and from itself; the commands may import from every folder.
LEVELS = {
    "command": 0,
    "records": 1,
    "scoring": 1,
    "chat_model": 2,
    "generating": 3,
    "training": 3,
    "comparing": 3,
    "serving": 4,
    "exporting": 4,
}
COMMAND_LEVEL = 5

# Libraries whose API moves are imported in one folder only.
ONLY_IMPORTED_IN = {"trl": "training", "distilabel": "generating", "ray": "generating"}
HEAVY = {"torch", "transformers", "trl", "peft", "accelerate", "datasets", "distilabel", "tensorboard", "pandas", "ray"}
LONGEST_FILE_LINES = 350
LONGEST_COMMAND_LINES = 60
MOST_ANYS = 14  # where a library has no types


def imported_modules(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, module) for every import of a file, wherever in the file it stands."""
    package_parts = file.relative_to(REPOSITORY).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package_parts[: len(package_parts) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "orpo":  # `from orpo import training` names a folder too
                for alias in node.names:
                    yield node.lineno, f"orpo.{alias.name}"
            else:
                yield node.lineno, module


def level_of(parts: tuple[str, ...]) -> int:
    """Return the level of `orpo.<folder>...` or of a command."""
    return LEVELS.get(parts[0], COMMAND_LEVEL)


def import_order_problems(file: Path) -> list[str]:
    """List the imports of a file that run the wrong way."""
    here = file.relative_to(PACKAGE).with_suffix("").parts
    problems = []
    for line, module in imported_modules(file):
        parts = tuple(module.split("."))
        where = f"{file.relative_to(REPOSITORY)}:{line}"
        only_in = ONLY_IMPORTED_IN.get(parts[0])
        if only_in and here[0] != only_in:
            problems.append(f"{where} imports {parts[0]}, which only orpo/{only_in}/ may")
        if parts[0] != "orpo" or len(parts) < 2 or parts[1].startswith("__"):
            continue
        if parts[1] not in LEVELS:
            problems.append(f"{where} imports the command {module}")
        elif parts[1] != here[0] and level_of(parts[1:]) >= level_of(here):
            problems.append(f"{where} imports {module}, which is not below orpo/{here[0]}")
    return problems


def test_imports_run_one_way() -> None:
    problems = [problem for file in sorted(PACKAGE.rglob("*.py")) for problem in import_order_problems(file)]
    assert not problems, "\n".join(problems)


def said_texts(file: Path) -> Iterator[str]:
    """Yield the texts of a file that are no docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def test_the_library_names_no_flags() -> None:
    """An error names a setting, in backticks or as `setting=`; the command that shows it makes a flag of that."""
    rooms = [folder for folder in LEVELS if folder != "command"]
    files = [file for room in rooms for file in sorted((PACKAGE / room).rglob("*.py")) if file.stem != "settings"]
    flags = {
        f"{file.relative_to(REPOSITORY)}: {text}"
        for file in files
        for text in said_texts(file)
        if re.search(r"(?<![\w(-])--[a-z]", text)
        and not re.search(r"uv (run|sync) |pip install |llama-|ollama |vllm ", text)
    }
    assert not flags, "\n".join(sorted(flags))


def test_the_import_walk_sees_every_form_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "orpo")
    file = tmp_path / "orpo" / "scoring" / "wrong.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "from orpo import training\n"
        "import orpo.chat_model.loading\n"
        "from ..evaluation import report\n"
        "def late():\n    from orpo.train import main\n    import trl.experimental\n"
        "from orpo.command.errors import InputError\n"
        "from . import right\n",
        encoding="utf-8",
    )
    lines = [int(problem.split(":")[1].split()[0]) for problem in import_order_problems(file)]
    assert lines == [1, 2, 3, 5, 6]


def test_every_folder_has_a_level_and_every_module_a_docstring() -> None:
    folders = {folder.name for folder in PACKAGE.iterdir() if folder.is_dir() and any(folder.glob("*.py"))}
    assert folders <= set(LEVELS), "give a new folder its level in this test"
    bare = [
        str(file.relative_to(REPOSITORY))
        for file in sorted(PACKAGE.rglob("*.py"))
        if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not bare


def test_top_level_names_hide_no_library() -> None:
    """A script's folder comes first on the import path, so `orpo/datasets.py` would break `import datasets`."""
    modules = (entry for entry in PACKAGE.iterdir() if entry.suffix in ("", ".py"))
    ours = {entry.stem for entry in modules if not entry.name.startswith(("_", "."))}
    installed = {
        name for name, owners in importlib.metadata.packages_distributions().items() if set(owners) != {"orpo"}
    }
    assert not ours & (set(sys.stdlib_module_names) | installed)


def test_light_folders_import_no_heavy_library() -> None:
    """Settings, scoring and `--help` must answer at once, and scoring works where torch is not installed."""
    problems = [
        f"{file.relative_to(REPOSITORY)}:{line} imports {module}"
        for folder, forbidden in (("command", HEAVY), ("records", HEAVY - {"datasets", "pandas"}), ("scoring", HEAVY))
        for file in sorted((PACKAGE / folder).rglob("*.py"))
        for line, module in imported_modules(file)
        if module.split(".")[0] in forbidden
    ]
    assert not problems, "\n".join(problems)


def line_count(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_files_stay_short_enough_to_read() -> None:
    long = {
        str(file.relative_to(REPOSITORY)) for file in PACKAGE.rglob("*.py") if line_count(file) > LONGEST_FILE_LINES
    }
    assert not long


def test_commands_parse_call_and_print() -> None:
    """A command is one shape: parse, one call, print; what it does lives in a folder."""
    assert not [file.stem for file in COMMANDS if line_count(file) > LONGEST_COMMAND_LINES]


def annotations(tree: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield every name that is annotated, with its annotation: arguments, fields and variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg, node.annotation
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.annotation


def is_any(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Name) and node.id == "Any"


def test_types_are_said() -> None:
    """`Any` switches the type checker off; models and tokenizers have types in transformers."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}
    anys = {file: sum(map(is_any, ast.walk(tree))) for file, tree in trees.items()}
    models = [
        f"{file.relative_to(REPOSITORY)}: {name}"
        for file, tree in trees.items()
        for name, annotation in annotations(tree)
        if name in ("model", "tokenizer") and is_any(annotation)
    ]
    assert sum(anys.values()) <= MOST_ANYS, sorted(anys.items(), key=lambda item: -item[1])[:10]
    assert not models, "\n".join(models)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda file: file.stem)
def test_a_command_says_how_it_is_run_and_loads_nothing_heavy(command: Path) -> None:
    module_doc = ast.get_docstring(ast.parse(command.read_text(encoding="utf-8"))) or ""
    assert f"uv run orpo/{command.name}" in module_doc, "the docstring holds a line to copy"
    # In a process of its own, as `--help` is: what other tests imported must not count.
    late = HEAVY | {"numpy", "rich", "yaml", "jinja2", "openai", "huggingface_hub"}
    watch = f"import sys, orpo.{command.stem} as c; assert c.main; print(*({late!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda file: file.stem)
def test_a_command_shows_its_help(command: Path, tmp_path: Path) -> None:
    """From another working folder, as a script, the way a user starts it."""
    done = subprocess.run([sys.executable, command, "--help"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"uv run orpo/{command.name}" in done.stdout


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_builds_its_settings(recipe: Path) -> None:
    """A recipe names its command in the key `command`; the command's module holds the settings class."""
    command = yaml.safe_load(recipe.read_text(encoding="utf-8")).get("command")
    assert command in {file.stem for file in COMMANDS}, "the key `command` names the command that the recipe is for"
    settings_class = find_settings_class(command)
    settings: object = parse_settings(settings_class, ["--recipe", str(recipe)], prog=f"{command}.py", description="")
    assert settings == build_settings(settings_class, recipe_values(settings_class, recipe, command=command))


def find_settings_class(command: str) -> type[object]:
    """Return `TrainSettings` of `orpo.train`, and so on; a command's only settings class whatever its name."""
    module = importlib.import_module(f"orpo.{command}")
    found: list[type[object]] = [value for value in vars(module).values() if is_settings_class(value)]
    named = [value for value in found if value.__name__.lower() == f"{command}settings"]
    assert len(named or found) == 1, f"orpo/{command}.py needs one settings class, named {command.title()}Settings"
    return (named or found)[0]
