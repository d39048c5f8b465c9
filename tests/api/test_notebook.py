"""From a pandas frame with text as labels to an exported student, as a notebook does it."""

import re
from pathlib import Path

import numpy as np
import pandas

SCRIPT = """
import pandas, xmodal
frame = pandas.read_csv("recordings.csv")
sensors = {"motion": frame.filter(like="motion"), "sound": frame.filter(like="sound")}
compared = xmodal.compare(sensors, frame["activity"], teacher="motion", student="sound", seeds=2, epochs=10)
print(compared.verdict)
file = compared.save("student.onnx")
new = frame.filter(like="sound").head(30)
print(list(xmodal.open_student(file).predict(new).predicted))
"""


def test_a_frame_becomes_an_onnx_student_that_predicts_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random, activity = np.random.default_rng(0), np.array(["sit", "walk", "run"])
    number = np.arange(240) % 3
    columns = {f"motion{i}": 3.0 * (number == i) + 0.3 * random.normal(size=240) for i in range(3)}
    columns |= {f"sound{i}": 70.0 + 20.0 * (number == i) + 5.0 * random.normal(size=240) for i in range(3)}
    pandas.DataFrame(columns | {"activity": activity[number]}).to_csv("recordings.csv", index=False)

    names: dict = {}
    exec(compile(SCRIPT, "a notebook", "exec"), names)

    assert len(SCRIPT.strip().splitlines()) < 15
    predicted = names["compared"].predict(names["new"])
    assert predicted.dtype.kind in "UO" and set(predicted) <= set(activity)
    assert (predicted == names["frame"]["activity"].head(30)).mean() > 0.8
    assert Path("student.onnx").is_file()
    assert re.findall(r"'(\w+)'", capsys.readouterr().out.splitlines()[-1]) == predicted.tolist()
