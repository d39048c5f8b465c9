"""Distil from arrays, step by step: teacher, student, score, file.

python examples/distil_arrays.py

The teacher's input is a whole digit, the student's its lower half. `xmodal.distill` does all of this in one call, with
the controls; here every step is visible. Ten seconds on a CPU.
"""

from __future__ import annotations

from sklearn.datasets import load_digits

import xmodal
from xmodal.engine.evaluate import evaluate
from xmodal.engine.processes.launch import launch
from xmodal.methods.kd import KD
from xmodal.methods.options import DistillationOptions
from xmodal.methods.supervised import Supervised
from xmodal.models.network import build_for


def main() -> None:
    # data: modality → array, one row per sample; the splits are drawn class by class
    pixels, digit = load_digits(return_X_y=True)
    halves = {"top": pixels[:, :32], "bottom": pixels[:, 32:]}
    data = xmodal.from_arrays(halves, digit, seed=0)
    settings = xmodal.FitSettings(epochs=10)

    # teacher: both halves, labels alone
    network = build_for(data.info, ("top", "bottom"))
    teacher = xmodal.fit(Supervised(network, data.info), data, settings).students["top+bottom"]

    # student: the lower half, labels and teacher
    method = KD(build_for(data.info, ("bottom",)), teacher.module, data.info, DistillationOptions(temperature=4.0))
    student = xmodal.fit(method, data, settings).students["bottom"]

    # the test split, once
    scores = evaluate({"teacher": teacher, "student": student}, data.test, data.info, fabric=launch())
    for name, score in scores.items():
        print(f"{name}: accuracy {score['accuracy']:.3f}")

    # the student alone; before the file gets its name, its outputs are compared with those of the original
    report = xmodal.export_student(student, data.info, "student", format="safetensors", samples=halves)
    predictions = xmodal.open_student("student").predict({"bottom": halves["bottom"][:5]})
    print(f"largest difference {report['difference']:.1e}; the first five digits: {', '.join(predictions.labels)}")


if __name__ == "__main__":
    main()
