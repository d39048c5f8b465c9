"""Networks of your own: any module that takes a tensor, or a dictionary of tensors, can be teacher or student.

python examples/own_networks.py

Synthetic recordings: motion (3 channels, 32 steps) shows the class clearly, sound (8 numbers) weakly. The student
is exported to ONNX, which needs neither the module's code nor xmodal. Ten seconds on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import xmodal
from xmodal.methods.kd import KD
from xmodal.methods.options import DistillationOptions
from xmodal.methods.supervised import Supervised
from xmodal.models.network import student_of


class Both(nn.Module):
    """Two modalities: the inputs come as a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.motion = nn.Sequential(nn.Conv1d(3, 16, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.head = nn.Linear(16 + 8, 3)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """(batch, …) of each modality in, (batch, 3) out."""
        return self.head(torch.cat([self.motion(inputs["motion"]), inputs["sound"]], dim=1))


def recordings(rows: int) -> tuple[dict[str, Tensor], Tensor]:
    random = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (rows,), generator=random)
    motion = torch.randn(rows, 3, 32, generator=random) + 0.3 * label[:, None, None]
    sound = torch.randn(rows, 8, generator=random) + 0.5 * label[:, None]
    return {"motion": motion, "sound": sound}, label


def main() -> None:
    torch.manual_seed(0)
    inputs, label = recordings(900)
    data = xmodal.from_arrays(inputs, label)
    settings = xmodal.FitSettings(epochs=10, learning_rate=3e-3)
    teacher = student_of(Both(), data.info, ("motion", "sound"))
    teacher = xmodal.fit(Supervised(teacher, data.info), data, settings).students["motion+sound"]
    small = student_of(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), data.info, ("sound",))
    run = xmodal.fit(KD(small, teacher.module, data.info, DistillationOptions(temperature=2.0)), data, settings)
    report = xmodal.export_student(run.students["sound"], data.info, "student", format="onnx", samples=inputs)
    print(f"validation accuracy {run.best['sound']['score']:.3f}")
    print(f"{report['files'][0]}: largest difference {report['difference']:.1e}")


if __name__ == "__main__":
    main()
