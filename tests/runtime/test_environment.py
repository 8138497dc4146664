import platform
import shutil
import subprocess
from pathlib import Path

import torch
import transformers

import astarpo.runtime
from astarpo.runtime import environment as module
from astarpo.runtime.environment import commit, environment, version_of


def test_versions_are_those_that_run():
    found = environment("cpu")
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["transformers"] == transformers.__version__
    assert "cores" in (found["device"] or "")
    assert version_of("no-such-distribution") is None


def git(folder, *words):
    name = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *name, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_the_checkout_the_code_is_in(tmp_path, monkeypatch):
    """In a repository of its own, changed, and in an environment that lies in another one."""
    package = tmp_path / "src" / "astarpo" / "runtime"
    package.mkdir(parents=True)
    shutil.copy(astarpo.runtime.__file__, package)
    monkeypatch.setattr(module.astarpo.runtime, "__file__", str(package / "__init__.py"))
    assert commit.__wrapped__() is None
    git(tmp_path, "init", "-q")
    (tmp_path / "notes.txt").write_text("mine")
    git(tmp_path, "add", "notes.txt")
    git(tmp_path, "commit", "-q", "-m", "another project")
    assert commit.__wrapped__() is None  # The code is not part of it.
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "the package")
    assert commit.__wrapped__() == git(tmp_path, "rev-parse", "HEAD")
    Path(package / "__init__.py").write_text("changed = True\n")
    assert commit.__wrapped__() == f"{git(tmp_path, 'rev-parse', 'HEAD')}-dirty"
