"""Write the pages of the documentation site: `make docs`.

The pages keep their places relative to each other, so that links between README.md, docs/ and other files of the
repository work on the site as they do in the repository. The reference of all keys is made from the schemas and from
the comments of the YAML files.
"""

import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import yaml

from melanoma.config.annotations import dataclass_in
from melanoma.config.arguments import flattened
from melanoma.config.command_schema import (
    AuditCommandConfig,
    EvaluateConfig,
    ExportConfig,
    PredictConfig,
    PromoteConfig,
    RollbackConfig,
    ServeConfig,
    SweepCommandConfig,
)
from melanoma.config.schema import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "pages"
COPIED = (
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "CITATION.cff", "docs", "experiments",
    "examples", "benchmarks", "conf",
)  # fmt: skip
COMMANDS = {
    "train": TrainConfig, "sweep": SweepCommandConfig, "audit": AuditCommandConfig, "evaluate": EvaluateConfig,
    "predict": PredictConfig, "promote": PromoteConfig, "rollback": RollbackConfig, "serve": ServeConfig,
    "export": ExportConfig,
}  # fmt: skip
BASES = {"data": "folder"}  # choices that the others of a group inherit from
_ALIGNED = 12  # spaces before a comment that belongs to the line above it
TYPED = {"saved_model": "model"}  # keys that have another name on the command line
FUNCTIONS = ("train", "sweep", "evaluate", "predict", "compare", "promote", "audit", "load")
CLASSES = ("Run", "Sweep", "ComparedRuns", "AuditReport", "Model", "Figure")


def main() -> None:
    """Write all pages anew."""
    shutil.rmtree(PAGES, ignore_errors=True)
    tracked = subprocess.run(["git", "ls-files", *COPIED], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_symlink():
            continue
        target = PAGES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    for page in PAGES.rglob("*.md"):
        page.write_text(_linked(page.read_text(encoding="utf-8")), encoding="utf-8")
    (PAGES / "README.md").rename(PAGES / "index.md")
    (PAGES / "reference").mkdir()
    (PAGES / "reference" / "keys.md").write_text(keys_page(), encoding="utf-8")
    (PAGES / "reference" / "python.md").write_text(_python_page(), encoding="utf-8")


def _linked(text: str) -> str:
    """Adapt the links to the names of the site."""
    text = re.sub(r"(\]\((?:\.\./)*)README\.md", r"\1index.md", text)
    return re.sub(r"\]\(((?:\.\./)*)(examples|experiments)\)", r"](\1\2/README.md)", text)


def keys_page() -> str:
    """Return the page of all keys: default, allowed values and comment of each."""
    lines = [
        "# Keys", "",
        "The keys of the commands, as `key=value`. Each command lists those that the ones above it do not have.",
        "`melanoma COMMAND --cfg job` prints the values of all keys.", "",
    ]  # fmt: skip
    listed: set[str] = set()
    for command, schema in COMMANDS.items():
        comments = _comments(command)
        rows = [row for one in fields(schema) for row in _rows(one.name, one, comments, listed)]
        lines += [f"## melanoma {command}", "", "| key | default | values | |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _rows(key: str, one: Any, comments: dict[str, tuple[str, str]], listed: set[str]) -> list[str]:
    nested = dataclass_in(one.type)
    if nested is not None:
        return [row for inner in fields(nested) for row in _rows(f"{key}.{inner.name}", inner, comments, listed)]
    if one.name == "_target_" or key in listed:
        return []
    listed.add(key)
    default, comment = comments.get(key, ("", ""))
    allowed = ", ".join(f"`{value}`" for value in _choices(one.type)) or str(one.metadata.get("range", ""))
    cells = (f"`{TYPED.get(key, key)}`", f"`{default}`" if default else "", allowed, comment)
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"]


def _choices(kind: Any) -> list[str]:
    """Return the values of a Literal, also within a union."""
    found = []
    for value in get_args(kind):
        found += [value] if isinstance(value, str) else _choices(value)
    return found


def _comments(command: str) -> dict[str, tuple[str, str]]:
    """Return default and comment of each key, from the YAML files of a command and of the default choices."""
    file = ROOT / "conf" / f"{command}.yaml"
    found = _commented(file, "")
    for entry in yaml.safe_load(file.read_text(encoding="utf-8")).get("defaults", []):
        for group, choice in entry.items() if isinstance(entry, dict) else ():
            chosen = ROOT / "conf" / group / f"{BASES.get(group, choice)}.yaml"
            if chosen.is_file():
                found = {**_commented(chosen, f"{group}."), **found}
    return found


def _commented(file: Path, prefix: str) -> dict[str, tuple[str, str]]:
    """Return default and comment of each key of a YAML file; a comment before a key counts, if it has none behind."""
    found: dict[str, tuple[str, str]] = {}
    path: list[tuple[int, str]] = []
    above: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("#"):
            text = line.strip("# ").strip()
            if path and len(line) - len(line.lstrip()) > _ALIGNED:  # continues the comment behind the last key
                key = prefix + ".".join(entry[1] for entry in path)
                found[key] = (found[key][0], f"{found[key][1]} {text}")
            else:
                above.append(text)
            continue
        match = re.match(r"^( *)([\w.]+):(?:\s+(.*?))?\s*(?:\s#\s*(.*))?$", line)
        if match is None:
            above = []
            continue
        indent, name, value, comment = len(match[1]), match[2], match[3] or "", match[4] or ""
        path = [entry for entry in path if entry[0] < indent] + [(indent, name)]
        key = prefix + ".".join(entry[1] for entry in path)
        found[key] = (value, comment or (" ".join(above) if above and indent else ""))
        above = []
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    for key, value in flattened({name: content[name] for name in content if name not in ("defaults", "hydra")}).items():
        found.setdefault(prefix + key, (str(value), ""))  # of a mapping in one line
    return found


def _python_page() -> str:
    lines = ["# Python", "", "Importing `melanoma` takes milliseconds; each function imports what it needs.", ""]
    lines += ["## Functions", ""]
    for name in FUNCTIONS:
        lines += [f"::: melanoma.api.functions.{name}", ""]
    lines += ["## Results", ""]
    for name in CLASSES:
        lines += [f"::: melanoma.api.results.{name}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
