"""Shell completion, in a real shell."""

import io
import shutil
import subprocess
from pathlib import Path

import pexpect
import pytest
from rich.console import Console

from melanoma.cli import COMMANDS
from melanoma.commands import completion
from melanoma.commands.completion import completion_script, main, words_of
from melanoma.errors import MelanomaError


def completed(line: str, breaks: str = " =:") -> list[str]:
    """What bash offers at the end of a line."""
    script = (
        f"{completion_script('bash')}\nCOMP_WORDBREAKS={breaks!r}\nCOMP_LINE={line!r}\nCOMP_POINT={len(line)}\n_melanoma\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "syntax" not in done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("melanoma ", set(COMMANDS)),
        ("melanoma pr", {"predict", "promote"}),
        ("melanoma train model=m", {"m1", "m2", "m3"}),
        ("melanoma train model=m1 optimizer=", {"adam", "adamw", "sgd"}),
        ("melanoma train training.ep", {"training.epochs="}),
        ("melanoma train ep", {"epochs=", "epoch="}),
        ("melanoma sweep launcher=", {"local", "ray", "slurm"}),
        ("melanoma sweep sweep.n", {"sweep.name=", "sweep.n_trials="}),
        ("melanoma predict mod", {"model="}),
        ("melanoma promote registry=i", {"isic9"}),
        ("melanoma audit data=syn", {"synthetic"}),
        ("melanoma cache ", {"list", "check", "clear"}),
        ("melanoma train nothing", set()),
    ],
)
def test_bash_offers_commands_choices_and_keys(line: str, offered: set[str]):
    assert set(completed(line)) == offered


def test_where_bash_does_not_break_at_an_equals_sign_the_whole_word_is_offered():
    assert completed("melanoma train model=m1", breaks=" ") == ["model=m1"]


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("melanoma promo", r"te\W"),
        ("melanoma train model=m", "model=m1 +model=m2 +model=m3"),
        ("melanoma train training.ep", "ochs="),
        ("melanoma completion z", r"sh\W"),
        ("melanoma train data.path=my_im", "ages"),
    ],
)
def test_zsh_offers_commands_choices_keys_and_files(typed: str, shown: str, tmp_path: Path):
    (tmp_path / "my_images").mkdir()
    (tmp_path / "script").write_text(completion_script("zsh"), encoding="utf-8")
    with pexpect.spawn("zsh", ["-f", "-i"], cwd=tmp_path, encoding="utf-8", timeout=20, dimensions=(40, 200)) as shell:
        shell.sendline("PS1='> '; source ./script && echo re''ady")
        shell.expect("ready")
        shell.send(f"{typed}\t")
        shell.expect(shown)


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("melanoma pr", {"predict", "promote"}),
        ("melanoma train model=m", {"model=m1", "model=m2", "model=m3", "model=my_images"}),
        ("melanoma train training.ep", {"training.epochs="}),
    ],
)
def test_fish_offers_commands_choices_and_keys(line: str, offered: set[str], tmp_path: Path):
    (tmp_path / "my_images").touch()
    (tmp_path / "script").write_text(completion_script("fish"), encoding="utf-8")
    asked = ["fish", "--no-config", "-c", f"source script; complete -C {line!r}"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_in_every_script(shell: str):
    script = completion_script(shell)
    assert all(f"{command})" in script or f"from {command}'" in script for command in COMMANDS)


def test_every_word_of_a_training_is_a_choice_or_a_key():
    assert {"model=m1", "experiment=isic9_m1", "seed=", "data.positive=", "--help"} < set(words_of("train"))


def test_an_unknown_shell_is_refused():
    with pytest.raises(MelanomaError, match="Expected a shell: bash, zsh or fish"):
        main(["tcsh"])


def test_the_script_is_printed_as_it_is(monkeypatch: pytest.MonkeyPatch):
    printed = io.StringIO()
    monkeypatch.setattr(completion, "out", lambda: Console(file=printed, width=40))
    main(["bash"])
    assert printed.getvalue() == completion_script("bash")
