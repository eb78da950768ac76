"""What can be read inside: the modules that were named, nothing beside them, however the paths are written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrpo_jax.errors import UserError
from regrpo_jax.sandbox import mounts
from regrpo_jax.sandbox.modules import inside
from regrpo_jax.sandbox.packages import FOLDER, sources_of
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.session import SandboxSession
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.toolbox.toolset import ToolsetSettings
from tests.toolbox.sandbox_checks import LIMITS, LOADER, pool

ROOT = Path(__file__).resolve().parents[2]
TOOL = '''
from regrpo_jax.toolbox.failures import ToolError
from {beside} import WORDS


def {name}(word: str) -> str:
    """Says it.

    Args:
        word: what to say
    """
    if word not in WORDS:
        raise ToolError(f"no such word: {{word}}")
    return f"{name} {{word}}"
'''
# All that an action can list and open, as it sees it: the names, and what is in the files that are not Python's.
WALK = """
import os, sys
skipped = ('/proc', '/sys', '/dev', '/usr', '/bin', '/lib', '/lib64', '/sbin')
for folder, folders, files in os.walk({top!r}):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in skipped]
    if any(folder == known or folder.startswith(known + '/') for known in {python!r}):
        folders[:] = []
        continue
    for name in folders + files:
        path = os.path.join(folder, name)
        if not any(path == known or path.startswith(known + '/') for known in {python!r}):
            print(path)
"""


def seen(session: SandboxSession, top: str = "/") -> set[str]:
    """Every path inside that is not part of Python or the system."""
    code = WALK.format(top=top, python=mounts.view_of(SandboxSettings()).python)
    result = session.run(code)
    assert len(result.text.encode()) == result.size - 1, "it was cut"
    return set(result.text.splitlines())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose folder holds more than its tools."""
    root = tmp_path / "a project"
    files = {
        ".git/config": "SECRET", "runs/one/config.json": "SECRET", "notes.txt": "SECRET", ".env": "SECRET",
        ".venv/pyvenv.cfg": "SECRET", "other/__init__.py": "SECRET", "mytools/__init__.py": "",
        "mytools/speech.py": TOOL.format(name="say", beside=".words"), "mytools/words.py": "WORDS = ('hello',)\n",
        "mytools/data/table.csv": "1,2\n", "mytools/.git": "SECRET", "mytools/.hidden/key": "SECRET",
        "mytools/runs/two/config.json": "SECRET", "mytools/env/pyvenv.cfg": "SECRET",
        "single.py": TOOL.format(name="shout", beside="vocabulary"), "vocabulary.py": "WORDS = ('hello',)\n",
        "secret.py": "SECRET",
    }  # fmt: skip
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_of_a_users_project_only_what_was_named_is_there(project: Path) -> None:
    chosen = ToolsetSettings(builtin=("final_answer",), user_tools=("mytools.speech:say", "single:shout"))
    settings = SandboxSettings(**{**LIMITS, "python_path": (str(project),)})
    with SandboxPool(settings, chosen) as a_pool, a_pool.open() as session:
        assert session.run("print(say('hello'), shout('hello'))").text == "say hello shout hello"
        found = {path.removeprefix(f"{project}/") for path in seen(session, str(project))}
        hidden = {"mytools/.git", "mytools/.hidden", "mytools/runs", "mytools/env"}
        assert found == hidden | {
            "mytools", "mytools/__init__.py", "mytools/speech.py", "mytools/words.py", "mytools/data",
            "mytools/data/table.csv", "single.py", "vocabulary.py",
        }  # fmt: skip
        code = f"for path in {sorted(str(project / path) for path in found)!r}:\n"
        code += "    try:\n        print(open(path).read())\n    except OSError:\n        pass"
        assert "WORDS" in (text := session.run(code).text) and "SECRET" not in text


def test_of_our_own_package_only_what_a_worker_needs_is_there() -> None:
    with pool(output_bytes=2**20) as a_pool, a_pool.open() as session:
        found = {path for path in seen(session) if path.startswith(f"{ROOT}/")}
        files = {path for path in found if path.endswith(".py") and path.startswith(str(FOLDER))}
        needed = {str(path) for path in inside(["regrpo_jax.toolbox.failures"])}
        assert needed <= files and str(FOLDER / "toolbox" / "failures.py") in files
        parts = {Path(path).relative_to(ROOT).parts[0] for path in found}
        assert parts <= {"regrpo_jax", "tests", ".venv"}
        for name in ("engine", "training", "rollouts", "main.py", "environments/episode.py", "environments/task.py"):
            assert session.run(f"import os\nos.path.exists({str(FOLDER / name)!r})").text == "False"
        for name in (".git", "runs", "experiments", "README.md", "docs"):
            assert session.run(f"import os\nos.path.exists({str(ROOT / name)!r})").text == "False"
        assert "No module named 'regrpo_jax.engine'" in session.run("import regrpo_jax.engine").text


def test_a_copy_that_is_installed_is_no_way_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "site-packages" / "regrpo_jax"
    copy.mkdir(parents=True)
    (copy / "answers.py").write_text("SECRET")
    known = mounts.libraries()
    monkeypatch.setattr(mounts, "libraries", lambda: (*known, str(copy.parent)))
    with pool() as a_pool, a_pool.open() as session:
        assert session.run(f"import os\nos.listdir({str(copy.parent)!r}), os.listdir({str(copy)!r})").text == (
            "(['regrpo_jax'], [])"
        )


def test_nothing_of_a_project_below_a_folder_of_the_system_is_there_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a checkout in /usr/src: the whole of /usr is mounted, the project's folder is a hole in it."""
    known = mounts._python_paths()
    monkeypatch.setattr(mounts, "_python_paths", lambda: (*known, str(ROOT.parent)))
    view = mounts.view_of(SandboxSettings(), [LOADER])
    arguments = list(mounts.mount_arguments(view, SandboxSettings(), owner=False))
    at = [number for number, argument in enumerate(arguments) if argument == str(ROOT)]
    assert [arguments[number - 1] for number in at] == ["--tmpfs", "--remount-ro"]
    assert arguments.index(str(ROOT.parent)) < at[0] < arguments.index(str(FOLDER / "errors.py")) < at[1]


def test_an_episode_does_not_write_beside_a_project_below_tmp(project: Path) -> None:
    settings = SandboxSettings(**{**LIMITS, "readable": (str(project / "notes.txt"),)})
    with SandboxPool(settings, loader=LOADER) as a_pool:
        for _ in range(2):
            with a_pool.open() as session:
                assert session.run(f"open({str(project / 'notes.txt')!r}).read()").text == "SECRET"
                for folder in (project, project.parent, *project.parents[:-2]):
                    if folder != Path("/tmp"):
                        assert "Read-only file system" in session.run(f"open({str(folder / 'x')!r}, 'w')").text
                assert (
                    session.run("import os\nopen('/tmp/x', 'w').write('')\nos.listdir('/tmp').count('x')").text == "1"
                )


def test_a_readable_file_is_read_by_the_way_it_was_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "link").symlink_to(project / "other", target_is_directory=True)
    (project / "other" / "table.csv").write_text("1,2")
    (project / "other" / "short.csv").symlink_to("table.csv")
    monkeypatch.chdir(project / "mytools")
    ways = [str(project / "link" / "table.csv"), str(project / "mytools" / ".." / "other" / "short.csv")]
    settings = SandboxSettings(**{**LIMITS, "readable": tuple(ways)})
    with SandboxPool(settings, loader=LOADER) as a_pool, a_pool.open() as session:
        assert [session.run(f"open({way!r}).read()").text for way in ways] == ["1,2", "1,2"]
        assert "FileNotFoundError" in session.run(f"open({str(project / 'other' / '__init__.py')!r})").text


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, str, Path]]]:
    """Name -> (where it is started, how Python is written there, how the project is)."""
    folder = tmp_path_factory.mktemp("some where")
    (folder / "py").symlink_to(Path(sys.executable).parent.parent, target_is_directory=True)
    (folder / "project").symlink_to(ROOT, target_is_directory=True)
    (folder / "inner").mkdir()
    name = Path(sys.executable).name
    yield {
        "absolute": (folder, sys.executable, ROOT),
        "through a link": (folder, str(folder / "py" / "bin" / name), folder / "project"),
        "relative": (folder / "inner", f"../py/bin/{name}", Path("../project")),
        "relative through the project": (ROOT / "tests", os.path.relpath(sys.executable, ROOT / "tests"), Path("..")),
        "untidy": (folder / "inner", f"..//py/bin/{name}", folder / "inner" / ".." / "project"),
    }


@pytest.mark.parametrize("way", ["absolute", "through a link", "relative", "relative through the project", "untidy"])
def test_however_python_and_the_project_are_written_actions_are_isolated(
    way: str, ways: dict[str, tuple[Path, str, Path]]
) -> None:
    folder, python, project = ways[way]
    code = (
        "from regrpo_jax.sandbox import isolation\n"
        "from tests.toolbox.sandbox_checks import pool\n"
        "assert isolation.why_not_isolated() == '', isolation.why_not_isolated()\n"
        "with pool() as a_pool, a_pool.open() as session:\n"
        "    assert not session._worker.command.weak\n"
        "    print(session.run('import os, numpy, regrpo_jax\\nprint(os.getcwd(), add(2, 3))').text)\n"
    )
    done = subprocess.run(
        [python, "-c", code], cwd=folder, capture_output=True, text=True, timeout=600,
        env=os.environ | {"PYTHONPATH": str(project)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "/workspace 5\n"), done.stderr


def test_the_links_of_a_way_are_all_that_it_needs(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "one").symlink_to("real")
    (tmp_path / "two").symlink_to(tmp_path / "one" / "deep")
    assert list(mounts.links_along(f"{tmp_path}/./one//deep")) == [(f"{tmp_path}/one", "real")]
    assert list(mounts.links_along(f"{tmp_path}/two/../x")) == [
        (f"{tmp_path}/two", f"{tmp_path}/one/deep"),
        (f"{tmp_path}/one", "real"),
        (f"{tmp_path}/real/deep", ""),
    ]
    (tmp_path / "round").symlink_to("round")
    assert len(list(mounts.links_along(f"{tmp_path}/round"))) == 40


def test_a_project_in_the_place_of_the_workspace_moves_the_workspace() -> None:
    assert mounts.View(("/opt/python",)).workspace == "/workspace"
    assert mounts.View(("/opt/python",), own=("/workspace/regrpo_jax/errors.py",)).workspace != "/workspace"
    assert mounts.View(("/workspaces/python",)).workspace == "/workspace"


def test_what_is_asked_for_and_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no_such_module.*python_path"):
        sources_of(["no_such_module:tool"], [tmp_path], [])
    with pytest.raises(UserError, match="built into Python"):
        sources_of(["sys:exit"], [], [])
    with pytest.raises(UserError, match="does not exist"):
        mounts.view_of(SandboxSettings(readable=(str(tmp_path / "none"),)))
    folder = tmp_path / "a:b"
    folder.mkdir()
    (folder / "tool.py").touch()
    with pytest.raises(UserError, match='no ":"'):
        mounts.view_of(SandboxSettings(python_path=(str(folder),)), ["tool:say"])


def test_what_a_module_imports_is_followed_and_nothing_else(project: Path) -> None:
    (project / "single.py").write_text("import json, other.part, numpy, missing\nfrom regrpo_jax import errors\n")
    (project / "other" / "part.py").write_text("import vocabulary\n")
    (project / "vocabulary.py").write_text("this is no Python\n")
    installed = [Path(folder) for folder in mounts.libraries()]
    found = sources_of(["single:shout"], [project], installed)
    assert {path.name for path in found.places} == {"single.py", "other", "vocabulary.py"}
    assert found.parents == [project] and found.own == ["regrpo_jax", "regrpo_jax.errors"]
    assert sources_of(["simpleeval:SimpleEval"], [], installed).places == []
