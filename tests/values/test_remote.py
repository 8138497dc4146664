"""Value tables on stores: in memory here, and on a local S3 server where one is installed."""

import json
import os
from importlib import import_module
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from astarpo import ValueTable
from astarpo.config import EstimateConfig, ExportConfig, ReportConfig, TrainConfig
from astarpo.runtime.files import DamagedFileError, write_atomic
from astarpo.runtime.locks import folder_lock, read_holder
from astarpo.runtime.outputs import check_file, check_folder
from astarpo.runtime.remote import as_path, is_remote
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.types import UserError
from astarpo.values.estimators import Plugin
from tests.conftest import digit_problems, flipped, run_command
from tests.values.test_table import FINGERPRINT, fill, sample

pytest.importorskip("upath", reason="paths on stores need universal_pathlib")

stage1, stage2 = import_module("astarpo.stages.estimate"), import_module("astarpo.stages.train")


@pytest.fixture
def memory():
    """The URL of an empty folder in memory."""
    folder = as_path("memory://tests")
    yield "memory://tests"
    if folder.exists():
        folder.fs.rm(folder.path, recursive=True)


@pytest.fixture(scope="module")
def bucket():
    """The URL of a bucket on a local server that speaks S3."""
    moto = pytest.importorskip("moto.server", reason="a local S3 server needs moto[server]")
    pytest.importorskip("s3fs", reason="s3:// needs s3fs")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "no_proxy": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["memory", "bucket"])
def store(request):
    return as_path(f"{request.getfixturevalue(request.param)}/{request.node.name[:40]}")


def test_a_url_is_a_path_on_a_store_and_nothing_else_is():
    assert is_remote(as_path("memory://a/b"))
    assert str(as_path("memory://a/b") / "c.parquet") == "memory://a/b/c.parquet"
    assert as_path(Path("memory://a/b")) == as_path("memory://a/b")  # Path() takes a slash away
    for local in ("a/b", "/a/b", "C:/a", "shipped:sums", "file.py:score"):
        assert as_path(local) == Path(local)
    assert as_path("file:///a/b") == Path("/a/b")
    with pytest.raises(UserError, match="no store that fsspec knows begins with nothing://"):
        as_path("nothing://a/b")


def test_a_table_on_a_store_is_the_one_on_disk(store, tmp_path):
    problems = digit_problems(3)
    local, there = fill(tmp_path / "t", problems), fill(store / "t", problems)
    assert there.rewards(problems).tolist() == local.rewards(problems).tolist()
    assert there.to_pandas().equals(local.to_pandas())
    assert there.manifest == local.manifest
    assert there.samples().equals(local.samples())
    for file in sorted((tmp_path / "t").iterdir()):
        assert (store / "t" / file.name).read_bytes() == file.read_bytes()
    assert fill(store / "t", digit_problems(5)).missing_samples(digit_problems(5), 8) == [[]] * 5
    with pytest.raises(UserError, match="weights is 'abc' in the table and 'other' here"):
        ValueTable.start(store / "t", FINGERPRINT | {"weights": "other"}, {})


def test_what_is_damaged_on_a_store_comes_back(store, caplog):
    problems = digit_problems(2)
    table = fill(store / "t", problems)
    shard = sorted((store / "t").glob("samples-*"))[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:-9])
    with pytest.raises(DamagedFileError, match=f"{shard.name}: damaged"):
        ValueTable(str(store / "t")).samples()
    fill(store / "t", problems)
    assert (store / "t" / shard.name).read_bytes() == content
    assert (store / "t" / f"damaged-{shard.name}").exists()
    assert "set aside as damaged-" in caplog.text
    shard.write_bytes(flipped(content, 300))  # of a page that is read
    with pytest.raises(DamagedFileError, match=f"{shard.name}: damaged"):
        ValueTable(str(store / "t")).samples()
    assert table.path == store / "t"


def test_two_writers_on_a_store_lose_nothing(store):
    """There are no locks there: names and the manifest protect them."""
    problems = digit_problems(4)
    with folder_lock(store / "t"), folder_lock(store / "t"):
        writers = [ValueTable.start(store / "t", FINGERPRINT, {}) for _ in range(2)]
        for number, problem in enumerate(problems):
            writers[number % 2].append([sample(problem, n, float(n < 3)) for n in range(8)])
        writers[0].append([sample(problems[1], n, float(n < 3)) for n in range(8)])
    assert read_holder(store / "t") is None
    assert len(list((store / "t").glob("samples-*"))) == 4
    assert writers[1].missing_samples(problems, 8) == [[], [], [], []]


def test_problem_sets_lie_on_stores(store):
    problems = digit_problems(5)
    write_problems(store / "p.parquet", problems)
    assert read_problems(store / "p.parquet") == problems
    with pytest.raises(UserError, match=r"no such file: .*none\.parquet"):
        read_problems(store / "none.parquet")


def test_nothing_is_left_of_a_write_that_fails(store):
    def fail(path):
        path.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomic(store / "a.json", fail)
    assert not (store / "a.json").exists()


def test_outputs_on_stores_are_checked(store):
    write_problems(store / "p.parquet", digit_problems(1))
    check_folder(store / "t", [store / "p.parquet"], kind="a value table", marks=("*.json",))
    check_file(store / "new.parquet")
    assert [file.name for file in store.iterdir()] == ["p.parquet"]
    with pytest.raises(UserError, match="exists already"):
        check_file(store / "p.parquet")
    with pytest.raises(UserError, match="is an input of this call"):
        check_file(store / "p.parquet", [str(store / "p.parquet")], overwrite=True)
    with pytest.raises(UserError, match="is not a value table"):
        check_folder(store, kind="a value table", marks=("manifest.json",))


def test_every_verb_takes_tables_on_a_store(
    store, policy_path, problems_path, table_path, tmp_path
):
    (store / "p.parquet").write_bytes(problems_path.read_bytes())
    shared = {"model": str(policy_path), "problems": f"{store}/p.parquet", "device": "cpu"}
    config = EstimateConfig(
        **shared, out=f"{store}/v", max_new_tokens=24, shard_problems=4, allow_truncated=True
    )
    table = stage1.estimate(config)
    local = ValueTable(table_path)
    assert table.samples().equals(local.samples())
    assert (store / "v" / "values.png").exists()
    problems = read_problems(problems_path)
    assert stage1.preview(config)[0] == "192 samples (8 each), 192 already there"
    export = import_module("astarpo.verbs.export").export
    out = export(
        ExportConfig(table=f"{store}/v", problems=f"{store}/p.parquet", out=f"{store}/e.parquet")
    )
    with out.open("rb") as file:
        rows = pq.read_table(file).to_pylist()
    assert [row["v_star"] for row in rows] == local.values(problems).v_star_P.tolist()
    run = TrainConfig(
        **shared, values=f"{store}/v", out=tmp_path / "run", steps=1, prompts_per_step=4
    )
    stage2.train(run)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (saved["values"], saved["problems"]) == (f"{store}/v", f"{store}/p.parquet")
    import_module("astarpo.verbs.report").report(ReportConfig(runs=[tmp_path / "run"]))
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "V* against solve rate" in page
    assert "196 answers" in page.replace(",", "") or '"num_answers":196' in page


def test_runs_stay_on_this_machine():
    with pytest.raises(ValueError, match=r"out: memory://a/run is on a store.*give a folder"):
        TrainConfig(model="m", problems="p", values="memory://a/v", out="memory://a/run")


def test_a_store_that_refuses_is_one_line_before_any_work(bucket, policy_path, problems_path):
    def refusal(**changed):
        given = {"--out": "s3://bucket/t", "--problems": problems_path, "--model": policy_path}
        words = [word for pair in (given | changed).items() for word in pair]
        done = run_command("estimate", *words)
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        return line

    assert "does not exist; check the name, and make the bucket" in refusal(
        **{"--out": "s3://no/t"}
    )
    assert "no such file: s3://bucket/none" in refusal(**{"--problems": "s3://bucket/none.parquet"})
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        assert "credentials; let this machine have credentials" in refusal()


def test_values_go_by_the_estimator_asked_for(store):
    table = fill(store / "t", digit_problems(2))
    found = ValueTable(table.path).values(digit_problems(2), Plugin(0.0))
    assert found.v_star_P.tolist() == [1.0, 1.0]
