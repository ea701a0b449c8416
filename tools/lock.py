"""Write the lock files and conda.yaml from pyproject.toml: `make lock`."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = str(Path(sys.executable).parent / "uv")
REQUIREMENTS = ROOT / "requirements"
CONDA = """# Written by `make lock`; exact versions from requirements/runtime.txt.
name: melanoma
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def compile_lock(output: str, *arguments: str, source: str = "pyproject.toml") -> None:
    """One lock file for Python 3.11 to 3.13, with hashes and without any index address."""
    command = [
        UV, "pip", "compile", *([source] if source else []), *arguments, "-c", "requirements/constraints.txt",
        "--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links",
        "--quiet", "--custom-compile-command", "make lock", "--output-file", f"requirements/{output}",
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True)


def pins(lock: Path) -> list[str]:
    """The lines `name==version [; marker]` of a lock file."""
    found = re.findall(r"^([A-Za-z0-9._\[\]-]+==[^\\\n#]+?)\s*\\?$", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return [" ".join(pin.split()) for pin in found]


def conda_text() -> str:
    """The content of conda.yaml that agrees with the lock file."""
    return CONDA + "".join(f'    - "{pin}"\n' for pin in pins(REQUIREMENTS / "runtime.txt"))


def main() -> None:
    """Write all of them, or with --upgrade take the newest versions that pyproject.toml allows."""
    extra = ["--upgrade"] if "--upgrade" in sys.argv else []
    compile_lock("runtime.txt", *extra)
    compile_lock("gpu.txt", "--extra", "gpu", "-c", "requirements/runtime.txt", *extra)
    compile_lock("dev.txt", "--group", "dev", "-c", "requirements/runtime.txt", *extra)
    compile_lock("docs.txt", "--group", "docs", "-c", "requirements/dev.txt", *extra, source="")
    (ROOT / "conda.yaml").write_text(conda_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
