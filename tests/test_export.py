import copy
import json
import logging
import struct
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from xmodal.deploy import Predictions, check_inputs, interpret, open_student, read_description
from xmodal.errors import InputError, MissingExtra
from xmodal.export import ExportMismatch, describe, export_student, load_student, save_student
from xmodal.models.network import Network, build_for, student_of
from xmodal.types import DataInfo, InputInfo, Normalisation

torch.set_num_threads(1)

INPUTS = {
    "audio": InputInfo((6,), layout="vector"),
    "gyro": InputInfo((2, 12), layout="sequence"),
    "values": InputInfo((3,), layout="vector"),
}
STATISTICS = {
    "audio": Normalisation([10.0, -3.0, 0.5, 2.0, 0.0, 7.0], [2.0, 1.0, 0.1, 5.0, 1.0, 3.0]),
    "gyro": Normalisation([[1.0], [-2.0]], [[3.0], [0.5]]),
}
NAMES = ("car", "dog", "rain")


def info(*, task="multiclass", classes=3, names=NAMES, inputs=INPUTS):
    return DataInfo(inputs, task, classes, {}, class_names=names, normalisation=STATISTICS)


def raw(rows=9, *, needs=("audio", "gyro", "values"), seed=0):
    random = np.random.default_rng(seed)
    return {name: random.normal(5.0, 4.0, (rows, *INPUTS[name].shape)).astype(np.float32) for name in needs}


def trained(needs=("audio", "gyro"), **options):
    """A student whose batch statistics are not those of a fresh network."""
    torch.manual_seed(1)
    student = build_for(info(**options), needs, width=8, dropout=0.1)
    with torch.no_grad():
        student.module.train()({name: torch.randn(16, *INPUTS[name].shape) for name in needs})
    student.module.eval()
    return student


def by_hand(student, samples):
    """Logits from raw samples, normalised here."""
    inputs = {}
    for name in student.needs:
        mean, std = (np.asarray(part, np.float32) for part in (STATISTICS[name].mean, STATISTICS[name].std))
        inputs[name] = torch.from_numpy((samples[name] - mean) / std)
    with torch.no_grad():
        return student.module.eval()(inputs)


def tensors_of(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def rewrite(path, change):
    """Alter the description of a student's file, with nothing but struct and json."""
    header, body = tensors_of(path)
    description = json.loads(header["__metadata__"]["xmodal"])
    change(description)
    header["__metadata__"]["xmodal"] = json.dumps(description)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + body)


@pytest.fixture
def saved(tmp_path):
    return save_student(tmp_path / "student.safetensors", trained(), info())


def test_round_trip_is_exact_to_the_bit_and_draws_no_random_number(saved):
    student = trained()
    before = torch.get_rng_state()

    again, description = load_student(saved)

    assert torch.equal(torch.get_rng_state(), before)
    for name, tensor in student.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], tensor)
    assert (again.needs, again.target, again.builder) == (("audio", "gyro"), "audio", "network")
    assert again.arguments == student.arguments and again.normalisation == student.normalisation
    assert not again.module.training
    described = json.loads(json.dumps(describe(student, info())))
    assert description == described == json.loads(saved.with_suffix(".json").read_text())


def test_folder_of_the_file_opens_and_the_same_student_is_the_same_file(saved, tmp_path):
    student, _ = load_student(saved.parent)

    again = save_student(tmp_path / "again" / "student.safetensors", student, info())

    assert again.read_bytes() == saved.read_bytes()
    assert sorted(path.name for path in again.parent.iterdir()) == ["student.json", "student.safetensors"]


def test_prediction_normalises_raw_samples_in_any_batch_size(saved):
    samples = raw()
    expected = torch.softmax(by_hand(trained(), samples), dim=1).numpy()
    predictor = open_student(saved)

    at_once, in_parts = predictor.predict(samples), predictor.predict(samples, batch_size=4)

    np.testing.assert_allclose(at_once.outputs, expected, atol=1e-6)  # one float32 rounding
    np.testing.assert_allclose(in_parts.outputs, expected, atol=1e-6)
    assert at_once.classes.tolist() == expected.argmax(axis=1).tolist()
    assert at_once.labels == [NAMES[number] for number in at_once.classes]


def test_prediction_does_not_look_at_other_modalities(saved):
    samples = raw()
    more = {**samples, "values": np.full((2, 3), np.nan), "image": None}

    predictor = open_student(saved)

    assert np.array_equal(predictor.predict(more).outputs, predictor.predict(samples).outputs)


def test_integers_doubles_and_tensors_are_read_as_the_numbers_they_are(saved):
    samples = {"audio": np.arange(24).reshape(4, 6), "gyro": torch.arange(96.0).reshape(4, 2, 12)}
    as_floats = {name: np.asarray(array, dtype=np.float64) for name, array in samples.items()}

    predictor = open_student(saved)

    assert np.array_equal(predictor.predict(samples).outputs, predictor.predict(as_floats).outputs)


def test_a_file_made_without_our_writer_is_read(tmp_path):
    description = {
        "schema": 1,
        "needs": ["values"],
        "target": "values",
        "builder": "network",
        "arguments": {"inputs": {"values": {"encoder": "linear", "shape": [3]}}, "outputs": 2, "fusion": "sum"},
        "task": "regression",
        "classes": 2,
        "class_names": [],
        "inputs": {"values": {"shape": [3], "dtype": "float32", "layout": "vector"}},
        "normalisation": {"values": {"mean": [1.0, 1.0, 1.0], "std": [2.0, 2.0, 2.0]}},
        "versions": {},
    }
    header = {
        "__metadata__": {"xmodal": json.dumps(description)},
        "head.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "head.bias": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
    }
    encoded = json.dumps(header).encode()
    body = struct.pack("<8f", 1, 0, 0, 1, 1, 1, 0.5, -1)
    (tmp_path / "student.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded + body)

    predictions = open_student(tmp_path).predict({"values": [[3.0, 5.0, 1.0]]})

    assert predictions.outputs.tolist() == [[1.5, 2.0]]  # normalised: 1, 2, 0
    assert predictions.classes is None
    with pytest.raises(InputError, match="predicts values"):
        _ = predictions.labels


def test_outputs_become_probabilities_and_classes():
    logits = np.array([[0.0, np.log(3.0)], [-80.0, 80.0]], dtype=np.float32)

    multiclass, chosen = interpret(logits, "multiclass")
    multilabel, present = interpret(logits, "multilabel")
    binary, positive = interpret(logits[:, 1:], "binary")

    np.testing.assert_allclose(multiclass, [[0.25, 0.75], [0.0, 1.0]], atol=1e-6)
    np.testing.assert_allclose(multilabel, [[0.5, 0.75], [0.0, 1.0]], atol=1e-6)
    np.testing.assert_allclose(binary, [[0.75], [1.0]], atol=1e-6)
    assert (chosen.tolist(), present.tolist(), positive.tolist()) == ([1, 1], [[0, 1], [0, 1]], [1, 1])


@pytest.mark.parametrize(
    ("format", "labels"),
    [
        ("safetensors", ("cat", "dog", "ape")),
        ("safetensors", (7, 3, -1)),
        ("safetensors", (2.0, 0.5, 1.0)),
        ("onnx", ("cat", "dog", "ape")),
    ],
    ids=["text", "integers", "floats", "text in an ONNX file"],
)
def test_an_exported_student_predicts_the_labels_of_its_data_in_their_type(tmp_path, format, labels):
    facts = replace(info(), label_values=labels)
    export_student(trained(), facts, tmp_path, format=format, samples=raw())

    predictions = open_student(tmp_path / f"student.{format}").predict(raw())

    assert predictions.predicted.tolist() == [labels[number] for number in predictions.classes]
    assert predictions.predicted.dtype.kind == np.array(labels).dtype.kind


def test_booleans_are_predicted_as_booleans_and_numbers_without_labels_as_numbers():
    classes = np.array([1, 0])

    found = Predictions(np.zeros((2, 1)), classes, label_values=(False, True)).predicted

    assert found.tolist() == [True, False] and found.dtype == bool
    assert Predictions(np.zeros((2, 2)), classes).predicted.tolist() == [1, 0]
    assert Predictions(np.zeros((2, 2)), np.array([[0, 1], [1, 1]])).predicted.tolist() == [[0, 1], [1, 1]]
    assert Predictions(np.array([[0.5], [2.0]]), None).predicted.tolist() == [0.5, 2.0]
    assert Predictions(np.array([[0.5, 1.0]]), None).predicted.tolist() == [[0.5, 1.0]]


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_cut_file_is_a_sentence(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])

    with pytest.raises(InputError, match="damaged or not a safetensors file"):
        open_student(saved)


def test_a_file_without_description_is_a_sentence(tmp_path):
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "student.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))

    with pytest.raises(InputError, match="no description of a student"):
        open_student(tmp_path)


def huge(description):
    description["arguments"]["inputs"]["audio"]["width"] = 10**6  # its projection would take 4 terabytes


CHANGES = {
    "version 2": (lambda d: d.update(schema=2), "version 2, and this xmodal reads version 1"),
    "builder": (lambda d: d.update(builder="os:system"), "no builder of students called 'os:system'"),
    "encoder": (
        lambda d: d["arguments"]["inputs"]["audio"].update(encoder="os:getcwd"),
        "no encoder called 'os:getcwd'",
    ),
    "argument": (lambda d: d["arguments"].update(extra=1), "cannot take the arguments"),
    "huge": (huge, "do not fit its description"),
    "width": (lambda d: d["arguments"].update(outputs=4), "of another shape: head.weight"),
    "missing": (lambda d: d.pop("task"), "wrong at task: Field required"),
    "type": (lambda d: d.update(classes="3"), "wrong at classes"),
    "shape": (lambda d: d["inputs"].pop("gyro"), "needs 'gyro' but has no shape for it"),
    "names": (lambda d: d.update(class_names=["one"]), "3 classes and 1 names"),
    "labels": (lambda d: d.update(label_values=["a", "b"]), "3 classes and 2 different labels"),
    "repeated labels": (lambda d: d.update(label_values=["a", "b", "a"]), "3 classes and 2 different labels"),
    "mixed labels": (lambda d: d.update(label_values=["a", 2, True]), "wrong at label_values"),
    "std": (lambda d: d["normalisation"]["gyro"].update(std=[[0.0], [1.0]]), "mean and std of 'gyro'"),
    "mean": (lambda d: d["normalisation"]["gyro"].update(mean="x"), "mean and std of 'gyro'"),
    "own": (lambda d: d.update(builder=None, arguments=None), "module that xmodal did not build"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_an_altered_description_is_a_sentence(saved, case):
    change, sentence = CHANGES[case]
    rewrite(saved, change)

    with pytest.raises(InputError, match=sentence):
        open_student(saved)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{" * 10, "[" * 100_000])
def test_a_description_that_is_no_json_object_is_a_sentence(text):
    with pytest.raises(InputError, match="here"):
        read_description(text, "here")


def test_wrong_inputs_are_named_together():
    description = describe(trained(("audio", "gyro", "values")), info())

    with pytest.raises(InputError) as refusal:
        check_inputs({"audio": np.zeros((3, 7)), "gyro": np.zeros((3, 2, 12), dtype="U1"), "value": 0}, description)

    audio, gyro, values = refusal.value.problems
    assert audio == "'audio' has shape (3, 7): expected (rows, 6), as in training. Reshape or resample it."
    assert "'gyro' holds <U1" in gyro
    assert "reads 'values', which was not given. Did you mean 'value'?" in values


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"audio": np.zeros(6)}, r"one sample of shape \(6,\): expected \(rows, 6\). Add an axis"),
        ({"audio": np.zeros((0, 6))}, "no samples"),
        ({"audio": np.zeros((4, 6))}, r"different numbers of samples \('audio' 4, 'gyro' 9\)"),
        ({"audio": np.zeros((9, 6), dtype=complex)}, "holds complex128"),
    ],
)
def test_a_wrong_input_is_a_sentence(saved, change, sentence):
    with pytest.raises(InputError, match=sentence):
        open_student(saved).predict({**raw(), **change})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_the_first_sample_that_is_not_finite_is_named(saved, value):
    samples = {name: array.astype(np.float64) for name, array in raw().items()}
    samples["gyro"][[5, 7], 1, 3] = value

    with pytest.raises(InputError, match="Sample 5 of 'gyro' holds NaN or infinite"):
        open_student(saved).predict(samples, batch_size=2)


@pytest.mark.parametrize("name", ["student.pt2", "student.pth", "student.pkl", "student"])
def test_formats_that_can_run_code_are_not_opened(tmp_path, name):
    (tmp_path / name).write_bytes(b"")

    with pytest.raises(InputError, match="can run code"):
        open_student(tmp_path / name)


def test_a_folder_without_a_student_says_where_there_are_some(tmp_path):
    save_student(tmp_path / "students" / "kd" / "student.safetensors", trained(), info())

    with pytest.raises(InputError, match="It holds students in: .*kd"):
        open_student(tmp_path)
    with pytest.raises(InputError, match="There is no file"):
        open_student(tmp_path / "absent.onnx")


@pytest.mark.parametrize("format", ["safetensors", "torch", "onnx"])
def test_export_is_compared_on_real_samples_and_leaves_the_student_alone(tmp_path, format):
    student, samples = trained(), raw()
    student.module.train()
    before = copy.deepcopy(student.module.state_dict())
    level = logging.getLogger("torch.onnx").level

    done = export_student(student, info(), tmp_path, format=format, samples=samples)

    assert done["batch_sizes"] == [1, 4, 7, 9] and done["rows"] == 9
    assert done["difference"] < 1e-5
    assert sorted(str(path) for path in tmp_path.iterdir()) == sorted(done["files"])
    assert student.module.training and logging.getLogger("torch.onnx").level == level
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.module.state_dict().items())
    if format != "torch":
        expected = torch.softmax(by_hand(student, samples), dim=1).numpy()
        for rows in (1, 7):
            part = {name: array[:rows] for name, array in samples.items()}
            outputs = open_student(done["files"][0]).predict(part).outputs
            np.testing.assert_allclose(outputs, expected[:rows], atol=1e-5)  # other kernels
    else:
        assert_holds_no_sample(done["files"][0], samples)


def assert_holds_no_sample(file, samples):
    (examples,), _ = torch.export.load(file).example_inputs
    assert sorted(examples) == sorted(samples.keys() - {"values"})
    assert all(not tensor.any() for tensor in examples.values())


def test_an_onnx_student_keeps_the_names_of_its_inputs_and_runs_without_xmodal(tmp_path):
    import onnxruntime

    names = {"linear": INPUTS["audio"], "my audio": INPUTS["gyro"]}
    data = DataInfo(names, "multiclass", 3, {})
    student = build_for(data, tuple(names), width=8)
    samples = {"linear": raw()["audio"], "my audio": raw()["gyro"]}
    export_student(student, data, tmp_path, format="onnx", samples=samples)

    session = onnxruntime.InferenceSession(tmp_path / "student.onnx", providers=["CPUExecutionProvider"])

    assert [(node.name, node.shape) for node in session.get_inputs()] == [
        ("linear", ["batch", 6]),
        ("my audio", ["batch", 2, 12]),
    ]
    assert [(node.name, node.shape) for node in session.get_outputs()] == [("outputs", ["batch", 3])]
    assert json.loads(session.get_modelmeta().custom_metadata_map["xmodal"])["needs"] == list(names)
    assert session.run(None, {name: array[:1] for name, array in samples.items()})[0].shape == (1, 3)


def test_a_spectrogram_of_any_duration_passes_through_onnx(tmp_path):
    data = DataInfo({"audio": InputInfo((1, 16, 24), layout="image", dynamic=(2,))}, "binary", 2, {})
    student = build_for(data, ("audio",), width=8)
    samples = np.random.default_rng(0).normal(size=(5, 1, 16, 40)).astype(np.float32)

    done = export_student(student, data, tmp_path, format="onnx", samples={"audio": samples})

    longer = open_student(done["files"][0]).predict({"audio": np.repeat(samples, 2, axis=3)})
    assert longer.outputs.shape == (5, 1) and longer.classes.shape == (5,)


class Restless(nn.Module):
    """Answers differently each time, also in eval mode: what a comparison must find."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, audio):
        return self.linear(audio) + torch.rand(audio.shape[0], 3)


def test_a_file_that_answers_differently_is_removed_and_the_one_before_stays(tmp_path):
    data, samples = info(), raw(needs=("audio",))
    export_student(student_of(nn.Linear(6, 3), data, ("audio",)), data, tmp_path, format="torch", samples=samples)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(ExportMismatch, match="differs from the student by"):
        export_student(student_of(Restless(), data, ("audio",)), data, tmp_path, format="torch", samples=samples)

    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


class Doubled(Network):
    """Has the parameters of the network that its description names, and another answer."""

    def forward(self, inputs):
        return 2.0 * super().forward(inputs)


def test_a_description_that_is_not_that_of_the_module_is_found(tmp_path):
    student = trained()
    network = student.module
    student.module = Doubled(
        {name: network.encoders[f"from_{name}"] for name in student.needs}, network.head, fusion="sum"
    )

    with pytest.raises(ExportMismatch):
        export_student(student, info(), tmp_path, format="safetensors", samples=raw())

    assert list(tmp_path.iterdir()) == []


def test_samples_of_another_shape_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="'audio' has shape"):
        export_student(
            trained(), info(), tmp_path / "out", format="torch", samples={**raw(), "audio": np.zeros((2, 7))}
        )

    assert not (tmp_path / "out").exists()


def test_unknown_format_and_missing_extra_are_sentences(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="Did you mean 'onnx'"):
        export_student(trained(), info(), tmp_path, format="onxx", samples=raw())
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match=r"xmodal\[export\]"):
        export_student(trained(), info(), tmp_path, format="onnx", samples=raw())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "student.onnx").write_bytes(b"")
    with pytest.raises(MissingExtra, match="onnxruntime"):
        open_student(tmp_path / "student.onnx")


def test_a_module_of_ones_own_loads_into_that_module_alone(tmp_path):
    module = nn.Sequential(nn.Linear(6, 3))
    file = save_student(tmp_path / "student.safetensors", student_of(module, info(), ("audio",)), info())

    again, _ = load_student(file, module=nn.Sequential(nn.Linear(6, 3)))

    samples = torch.randn(2, 6)
    assert torch.equal(again.module({"audio": samples}), module(samples))
    with pytest.raises(InputError, match="Export it to ONNX"):
        load_student(file)
    with pytest.raises(InputError, match="do not fit this network"):
        load_student(file, module=nn.Linear(6, 3))
    with pytest.raises(InputError, match="Export it to onnx"):
        student = student_of(module, info(), ("audio",))
        export_student(student, info(), tmp_path, format="safetensors", samples=raw())


class Branching(nn.Module):
    def forward(self, audio):
        return audio[:, :3] if audio.sum() > 0 else audio[:, 3:]


def test_a_network_that_cannot_be_traced_is_a_sentence(tmp_path):
    student = student_of(Branching(), info(), ("audio",))

    with pytest.raises(InputError, match="cannot trace this student"):
        export_student(student, info(), tmp_path, format="torch", samples=raw())

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no graph"])
def test_a_damaged_onnx_file_is_a_sentence(tmp_path, content):
    (tmp_path / "student.onnx").write_bytes(content)

    with pytest.raises(InputError, match="damaged or not an ONNX file"):
        open_student(tmp_path)


def test_an_onnx_file_of_others_is_a_sentence(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "a.onnx")

    with pytest.raises(InputError, match="without the description of a student"):
        open_student(tmp_path / "a.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_recurrent_networks_export_under_warnings_as_errors(tmp_path, format):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(2, 4, batch_first=True, bidirectional=True)
            self.head = nn.Linear(8, 3)

        def forward(self, gyro):
            return self.head(self.gru(gyro.transpose(1, 2))[0][:, -1])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = export_student(
            student_of(Last(), info(), ("gyro",)), info(), tmp_path, format=format, samples=raw(needs=("gyro",))
        )

    assert done["difference"] < 1e-5


@pytest.mark.parametrize("format", ["safetensors", "onnx"])
def test_places_that_hold_nothing_stay_zero_in_a_student_of_raw_samples(tmp_path, format):
    normalisation = {"lidar": Normalisation([[[5.0]], [[-1.0]]], [[[2.0]], [[0.5]]], empty=True)}
    info = DataInfo(
        {"lidar": InputInfo((2, 16, 16), layout="image")}, "multiclass", 3, {}, dense=True, normalisation=normalisation
    )
    torch.manual_seed(0)
    own = format == "onnx"  # a small one, since its export takes the time of its layers
    student = (
        student_of(nn.Conv2d(2, 3, 3, padding=1), info, ["lidar"])
        if own
        else build_for(info, ["lidar"], encoder="salsanext", numbers={"width": 2})
    )
    random = np.random.default_rng(0)
    raw = random.normal(5, 2, (4, 2, 16, 16)).astype(np.float32)
    hit = random.random((4, 1, 16, 16)) < 0.4
    raw[:, 1][raw[:, 1] < 4] = 0  # a channel that is zero by chance holds something
    raw *= hit
    normalised = (raw - [[[5]], [[-1]]]) / [[[2]], [[0.5]]] * hit

    done = export_student(student, info, tmp_path, format=format, samples={"lidar": raw})

    with torch.no_grad():
        logits = student.module.eval()({"lidar": torch.from_numpy(normalised.astype(np.float32))})
    predictor = open_student(done["files"][0])
    np.testing.assert_allclose(predictor.predict({"lidar": raw}).outputs, logits.softmax(dim=1), atol=1e-5)
    assert own or load_student(done["files"][0])[0].normalisation == normalisation
