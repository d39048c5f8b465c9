"""`--teacher-from` on the command line: one command from a teacher that exists to a student."""

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper

DISTILL = "distill digits --student fourier --epochs 2 --threads 1 --digits.views rows,fourier"
MODULE = """
import torch

class Teacher(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(64, 13)

    def forward(self, inputs):
        return self.layer(inputs["rows"].float().flatten(1) / 16)

teacher = Teacher()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XMODAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def logits():
    """Outputs of a teacher that is right, for the 1,797 digits."""
    from sklearn.datasets import load_digits

    return 5.0 * np.eye(10)[load_digits(return_X_y=True)[1]]


def test_a_torch_teacher_with_thirteen_classes(call, read, tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    names = ["x", *map(str, range(10)), "y", "z"]
    (tmp_path / "names.txt").write_text("\n".join(names))

    status, out, _ = call(
        DISTILL,
        "--teacher",
        "rows",
        "--teacher-from",
        f"{tmp_path / 'mine.py'}:teacher",
        "--teacher-classes",
        tmp_path / "names.txt",
        "--out",
        tmp_path / "run",
    )

    assert status == 0
    result = read(tmp_path / "run" / "result.json")
    assert any("of its 13 classes 10 are used, renormalised over these" in note for note in result["notes"])
    assert [row["name"] for row in result["rows"]] == [
        "teacher",
        "no-KD",
        "kd",
        "kd (shuffled teacher)",
        "kd (permuted pairs)",
    ]


def test_outputs_of_predict_and_of_teacher_table_are_teachers(call, read, run_folder, tmp_path):
    student = run_folder / "seed-0" / "teacher" / "students" / "rows"
    views = "--digits.views rows,fourier"
    assert call(f"predict {student} digits --split train --outputs teacher.npy {views}")[0] == 0
    assert call(f"teacher-table {run_folder} digits --out all.npz {views}")[0] == 0

    for table, rows in (("teacher.npy", 4), ("all.npz", 5)):
        status, _, _ = call(DISTILL, "--teacher-from", table, "--out", tmp_path / table)
        assert status == 0
        # the table of the training rows gives the teacher no score
        assert len(read(tmp_path / table / "result.json")["rows"]) == rows


def test_a_run_is_not_continued_with_another_teacher(call, logits, tmp_path):
    np.save(tmp_path / "teacher.npy", logits)
    words = (DISTILL, "--teacher-from", tmp_path / "teacher.npy", "--out", tmp_path / "run")
    assert call(*words)[0] == 0
    np.save(tmp_path / "teacher.npy", 2 * logits)

    status, _, err = call(*words, "--resume")

    assert status == 2 and "is not the one with which the run in" in err


@pytest.fixture
def own_data(tmp_path):
    """A folder with token ids and a vector of each sample; the tokens say the class."""
    folder, random = tmp_path / "own", np.random.default_rng(0)
    folder.mkdir()
    label = np.arange(90) % 3
    np.save(folder / "tokens.npy", np.concatenate([label[:, None] + 1, random.integers(4, 30, (90, 5))], axis=1))
    np.save(folder / "sound.npy", np.eye(3, 4)[label] + random.normal(size=(90, 4)))
    np.save(folder / "labels.npy", np.array(["ant", "bee", "cat"])[label])
    return folder


def test_an_onnx_file_distils_a_student_in_one_command(call, read, own_data, tmp_path):
    weight = np.eye(4, 3, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["sound", "w"], ["logits"])],
        "teacher",
        [helper.make_tensor_value_info("sound", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "teacher.onnx"))

    words = "--teacher sound --student tokens --epochs 1 --threads 1"
    status, _, err = call(
        f"distill {own_data} {words}", "--teacher-from", tmp_path / "teacher.onnx", "--out", tmp_path / "run"
    )

    assert status == 0, err
    rows = {row["name"]: row["test"]["accuracy"] for row in read(tmp_path / "run" / "result.json")["rows"]}
    assert rows["teacher"] > 0.4 and "kd (permuted pairs)" in rows


def test_a_local_model_folder_distils_a_student_in_one_command(call, read, own_data, tmp_path):
    torch.manual_seed(0)
    names = {0: "cat", 1: "ant", 2: "bee", 3: "dog"}
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=30, pad_token_id=0, num_labels=4, id2label=names, **sizes)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")

    words = "--teacher tokens --student sound --epochs 1 --threads 1"
    given = ("--teacher-from", tmp_path / "bert", "--out", tmp_path / "run")
    status, _, err = call(f"distill {own_data} {words}", *given)

    assert status == 0, err
    result = read(tmp_path / "run" / "result.json")
    assert any("of its 4 classes 3 are used, renormalised over these" in note for note in result["notes"])
    assert len(result["rows"]) == 5


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--teacher-from nothing", "There is no teacher in nothing"),
        ("--teacher-from teacher.npy --untrained", "A given teacher has no untrained version"),
        ("--teacher-from teacher.npy --methods supervised,discom", "No method here learns from a given teacher"),
        ("--teacher-from teacher.npy --methods mfh", "trains a teacher of its own with these settings"),
        ("--teacher-from teacher.npy --teacher-width 8", "build a teacher, and --teacher-from gives one"),
        ("--teacher-probe", "--teacher-probe is about a given teacher"),
        ("--teacher-from teacher.npy --teacher-outputs logit", "teacher-outputs"),
        ("--teacher-from short.npy", "has 100 rows, and the data has 1797"),
    ],
)
def test_refusals(call, logits, flags, sentence):
    np.save("teacher.npy", logits)
    np.save("short.npy", logits[:100])

    status, out, err = call(DISTILL.replace("distill", "compare"), *flags.split())

    assert status == 2 and sentence in err and "Traceback" not in err
