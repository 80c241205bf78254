"""Reading datasets of the Hub: finding, fetching and mapping their files. The hub is a
small server of ours.
"""

import csv
import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import huggingface_hub
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aipo_env import ConfigError, DataError, build_source

ROWS = [
    {"problem": "What is 1 + 1?", "answer": "2"},
    {"problem": "What is 2 + 2?", "answer": "4"},
]


def parquet(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(folder: Path, name: str = "x/y", **options: object):
    return build_source(
        {"type": "hf", "name": name, "folder": str(folder), **options}, seed=0
    )


def prompts(source) -> list[str]:
    return [
        source.task("train", index).prompt for index in range(source.num_tasks("train"))
    ]


class Hub(BaseHTTPRequestHandler):
    """Answers what the client asks of a hub; `folder` holds
    OWNER/NAME/REVISION/files.
    """

    folder: Path

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        rest = path.partition("datasets/")[2]
        owner, name, verb, rest = rest.split("/", 3)
        repo = self.folder / owner / name
        if not repo.is_dir() or name == "gated":
            code, fault = (
                (403, "GatedRepo") if name == "gated" else (404, "RepoNotFound")
            )
            return self._send(code, b"", {"X-Error-Code": fault})
        revision = next(
            (r for r in ("refs/convert/parquet", "main") if rest.startswith(r)), ""
        )
        if not (repo / revision).is_dir() or not revision:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if verb == "tree":
            paths = sorted(p for p in (repo / revision).rglob("*") if p.is_file())
            files = [
                {
                    "type": "file",
                    "oid": "0" * 40,
                    "size": p.stat().st_size,
                    "path": p.relative_to(repo / revision).as_posix(),
                }
                for p in paths
            ]
            return self._send(
                200, json.dumps(files).encode(), {"Content-Type": "application/json"}
            )
        content = (repo / rest).read_bytes()
        return self._send(
            200, content, {"ETag": f'"{len(content)}"', "X-Repo-Commit": "a" * 40}
        )

    do_HEAD = do_GET

    def _send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub's folder, served; downloads go to a cache of the test's."""
    handler = type("Handler", (Hub,), {"folder": tmp_path / "hub"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": (
            address + "/{repo_id}/resolve/{revision}/{filename}"
        ),
        "HF_HUB_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()
    yield tmp_path / "hub"
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()


def test_a_dataset_is_fetched(hub: Path):
    parquet(hub / "x/y/main/data/train-00000-of-00001.parquet", ROWS)
    parquet(hub / "x/y/main/data/test-00000-of-00001.parquet", ROWS[:1])
    source = build_source("hf:x/y", seed=0)
    assert (source.num_tasks("train"), source.num_tasks("test")) == (2, 0)
    task = source.task("train", 1)
    assert (task.prompt, task.answer, task.kind, task.source) == (
        "What is 2 + 2?",
        "4",
        "math",
        "x/y",
    )
    assert task.id.startswith("y-")
    assert len(task.id) == 18
    with pytest.raises(
        DataError, match=r"no row belongs to the 'test' split \(tasks held: train 2\)"
    ):
        source.task("test", 0)


def test_the_parquet_branch(hub: Path):
    parquet(hub / "x/y/refs/convert/parquet/default/test/0000.parquet", ROWS)
    source = build_source("hf:x/y,revision=refs/convert/parquet,split=test", seed=0)
    assert (source.num_tasks("train"), source.num_tasks("test")) == (0, 2)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (
            "hf:x/gated",
            (
                "hf:x/gated cannot be fetched: datasets/x/gated is gated on the Hub."
                " Accept its terms on its page, .*/datasets/x/gated, and log in with"
                " `hf auth login` or HF_TOKEN"
            ),
        ),
        (
            "hf:x/none",
            (
                "hf:x/none cannot be fetched: there is no such repository on the Hub,"
                " or it is private"
            ),
        ),
        (
            "hf:x/y,revision=v9",
            (
                "hf:x/y cannot be fetched: the repository has no such revision. .* give"
                " its files with folder="
            ),
        ),
        ("hf:x y/z", "hf:x y/z cannot be fetched: HFValidationError: .* Check id"),
        (
            "hf:x/y",
            (
                "x/y: no data files, or not all, of config='' and split='train' among"
                " README.md"
            ),
        ),
    ],
)
def test_what_cannot_be_had_is_explained(hub: Path, spec: str, fault: str):
    (hub / "x/y/main").mkdir(parents=True)
    (hub / "x/y/main/README.md").write_text("no data")
    with pytest.raises(DataError, match=fault):
        build_source(spec, seed=0)


def test_a_network_that_is_down(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError,
        match="hf:x/y cannot be fetched: HF_HUB_OFFLINE forbids .* give its files with"
        " folder=PATH",
    ):
        build_source("hf:x/y", seed=0)


@pytest.mark.parametrize(
    ("names", "options", "chosen"),
    [
        (["problems.jsonl"], {}, "problems.jsonl"),
        (
            ["data/train.jsonl", "data/test.jsonl", "data/dev.jsonl"],
            {},
            "data/train.jsonl",
        ),
        (["train.jsonl", "test.jsonl", "test2.jsonl"], {"split": "test"}, "test.jsonl"),
        (
            ["en/train-0.jsonl", "en/test-0.jsonl", "cn/train-0.jsonl"],
            {"config": "cn"},
            "cn/train-0.jsonl",
        ),
        (["AIME-I.jsonl", "AIME-II.jsonl"], {"config": "AIME-I"}, "AIME-I.jsonl"),
        (
            [".cache/train.jsonl", "train.jsonl", "dataset_infos.json"],
            {},
            "train.jsonl",
        ),
        (["a/train.csv", "a/train.json"], {}, "a/train.json"),
    ],
)
def test_files_are_found_by_the_words_in_their_names(
    tmp_path: Path, names: list, options: dict, chosen: str
):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"problem": name, "answer": "1"}) + "\n")
    source = read(tmp_path, **options)
    split = "test" if options.get("split") == "test" else "train"
    assert [
        source.task(split, index).prompt for index in range(source.num_tasks(split))
    ] == [chosen]


@pytest.mark.parametrize("options", [{"split": "test"}, {"config": "fr"}])
def test_another_part_is_never_read_instead(tmp_path: Path, options: dict):
    lines(tmp_path / "en" / "train.jsonl", ROWS)
    with pytest.raises(
        DataError, match=r"no data files, or not all, .* among en/train\.jsonl"
    ):
        read(tmp_path, **options)


def test_every_format_gives_the_same_tasks(tmp_path: Path):
    parquet(tmp_path / "a" / "train.parquet", ROWS)
    lines(tmp_path / "b" / "train.jsonl", ROWS)
    lines(tmp_path / "c" / "train.json", ROWS)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.json").write_text("\n" + json.dumps(ROWS, indent=2))
    (tmp_path / "e").mkdir()
    with (tmp_path / "e" / "train.csv").open(
        "w", newline="", encoding="utf-8-sig"
    ) as file:
        writer = csv.DictWriter(file, ["problem", "answer"])
        writer.writeheader()
        writer.writerows(ROWS)
    for name in "abcde":
        source = read(tmp_path / name)
        assert [source.task("train", index).answer for index in range(3)] == [
            "2",
            "4",
            "2",
        ]
        assert prompts(source) == ["What is 1 + 1?", "What is 2 + 2?"]


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"Question": "q?", "Answer": 7}, "7"),
        ({"question": "q?", "answer": 7.0}, "7"),
        ({"question": "q?", "answer": 2.5}, "2.5"),
        (
            {
                "prompt": [{"role": "user", "content": "q?"}],
                "reward_model": {"ground_truth": "x^2"},
            },
            "x^2",
        ),
        (
            {"prompt": "q?", "solution": r"so \boxed{1}, no: \boxed{\frac{1}{2}} {"},
            r"\frac{1}{2}",
        ),
        (
            {"problem": "", "question": "q?", "answer": None, "solution": r"\boxed{3}"},
            "3",
        ),
        (
            {
                "problem": " q? ",
                "answer": float("nan"),
                "expected_answer": "½ \N{SNOWMAN}",
            },
            "½ \N{SNOWMAN}",
        ),
    ],
)
def test_usual_columns_are_found(tmp_path: Path, row: dict, answer: str):
    parquet(tmp_path / "train.parquet", [row])
    task = read(tmp_path).task("train", 0)
    assert (task.prompt, task.answer) == ("q?", answer)


def test_columns_can_be_named(tmp_path: Path):
    lines(
        tmp_path / "train.jsonl",
        [{"in.put": "q?", "out": {"gold": ["5"]}, "problem": "no", "answer": "no"}],
    )
    task = read(tmp_path, prompt="in.put", answer="out.gold.0").task("train", 0)
    assert (task.prompt, task.answer) == ("q?", "5")


def test_rows_without_an_answer_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    bad = [
        {"problem": "a"},
        {"problem": "b", "answer": ""},
        {"problem": "c", "answer": ["1"]},
        {"problem": "d", "answer": True},
        {"answer": "1"},
        {"problem": "\ud800", "answer": "1"},
    ]
    lines(tmp_path / "train.jsonl", [*bad, ROWS[0]])
    with caplog.at_level(logging.INFO, "aipo_env"):
        source = read(tmp_path)
    assert prompts(source) == ["What is 1 + 1?"]
    assert source.skipped == {
        "no answer": 2,
        "its answer is list, not text": 1,
        "its answer is bool, not text": 1,
        "no problem": 1,
        "no task": 1,
    }
    [record] = caplog.records
    assert record.getMessage().startswith(
        "hf:x/y: 1 tasks to train with; 2 left out: no answer; 1 left out: its"
    )


def test_a_benchmark_is_read_whole_or_not_at_all(tmp_path: Path):
    lines(tmp_path / "test.jsonl", [ROWS[0], {"problem": "SECRET", "level": 3}])
    with pytest.raises(
        DataError, match=r"test\.jsonl, line 2: no answer\. Columns: problem, level"
    ) as caught:
        read(tmp_path, split="test")
    assert "SECRET" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_columns_that_are_not_there(tmp_path: Path):
    parquet(tmp_path / "train.parquet", [{"id": 1, "text": "SECRET"}])
    with pytest.raises(
        DataError,
        match=r"no task in 1 rows; left out: .'no problem': 1.\. Columns: id, text;",
    ):
        read(tmp_path)
    with pytest.raises(
        DataError, match=r"left out: .'no answer': 1.\. Columns: id, text;"
    ):
        read(tmp_path, prompt="text", answer="gold")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        (
            "train.parquet",
            b"PAR1 no parquet",
            r"train\.parquet, row 1: not parquet .*Mend or delete it",
        ),
        (
            "train.jsonl",
            b'{"problem": "p", "answer": NaN}',
            r"train\.jsonl, line 1: not JSON .NaN is no JSON",
        ),
        ("train.jsonl", b'{"a": 1}\n[1]', "line 2: a row must be an object, got list"),
        (
            "train.json",
            b"[" * 100_000,
            r"train\.json, line 1: not JSON .nested too deeply",
        ),
        ("train.csv", b"problem,answer\n\xff\xfe,1\n", r"train\.csv, row 1: not csv"),
        ("train.csv", b'problem,answer\n"a"b,1\n', r"train\.csv, row 1: not csv"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, fault: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=fault):
        read(tmp_path)


def test_a_limit(tmp_path: Path):
    lines(
        tmp_path / "train.jsonl",
        [{"problem": f"p{n}", "answer": "1"} for n in range(9)],
    )
    assert prompts(read(tmp_path, limit=3)) == ["p0", "p1", "p2"]


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (
            "hf:math5000",
            "'math5000' is neither OWNER/NAME nor known. .* Did you mean 'math500'",
        ),
        (
            "hf:x/y,start=2024-01-01",
            "'2024-01-01' is no day like 2024-08-01, or the dataset has no dates",
        ),
        ("hf:livecodebench,end=May", "'May' is no day"),
        ("hf:x/y,limit=-1", "hf:x/y: limit=-1 must be a whole number, at least 0"),
        ("hf:x/y,splt=test", "there is no option 'splt'.* Did you mean 'split'"),
    ],
)
def test_options_that_do_not_fit(spec: str, fault: str):
    with pytest.raises(ConfigError, match=fault):
        build_source(spec, seed=0)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("It is $\\boxed 5$.", "5"),
        ("It is \\fbox{7}.", "7"),
        ("3 + 4 = 7\n#### 7", "7"),
        ("It is \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
    ],
)
@pytest.mark.parametrize("column", ["solution", "answer"])
def test_a_solution_marks_its_answer_as_a_reply_does(
    tmp_path: Path, solution: str, answer: str, column: str
):
    lines(tmp_path / "train.jsonl", [{"problem": "p", column: solution}])
    assert read(tmp_path).task("train", 0).answer == answer


def test_a_row_whose_answer_cannot_be_read_is_left_out_and_counted(tmp_path: Path):
    rows = [*ROWS, {"problem": "What is 3 + 3?", "answer": "\\boxed{3} or \\boxed{"}]
    lines(tmp_path / "train.jsonl", rows)
    source = read(tmp_path)
    assert len(prompts(source)) == 2
    assert source.skipped == {"an answer that cannot be read": 1}
