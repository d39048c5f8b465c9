"""Controls of a method with a frozen teacher: the same training with one thing taken away.

Each answers one question: would the student have gained the same without it? Which controls are trained depends on the
data. With a label for every row they are the shuffled and, on request, the untrained teacher. With unlabelled rows
there are more, because more could be the reason of a gain.
"""

from __future__ import annotations

from dataclasses import dataclass

# where the outputs of a teacher come from
TRAINED, UNTRAINED, SAME_MODALITY = "trained", "untrained", "same modality"


@dataclass(frozen=True, kw_only=True)
class Control:
    """A control of a method.

    Attributes:
        title: in the table, behind the name of the method.
        question: that it answers.
        exchange: how the teacher's outputs are exchanged between samples, see `engine.fit`.
        teacher: what the method gets as its teacher.
        labelled_only: whether the method learns from the labelled rows alone.
    """

    title: str
    question: str
    exchange: str = ""
    teacher: str = TRAINED
    labelled_only: bool = False


CONTROLS = {
    "shuffled": Control(
        title="shuffled teacher",
        question="does more travel than the class that the teacher predicts?",
        exchange="class",
    ),
    "untrained": Control(
        title="untrained teacher",
        question="does it matter what the teacher has learned?",
        teacher=UNTRAINED,
    ),
    "labelled": Control(
        title="labelled rows only",
        question="do the unlabelled rows matter?",
        labelled_only=True,
    ),
    "same-modality": Control(
        title="same-modality teacher",
        question="does the other modality matter, or is it self-training?",
        teacher=SAME_MODALITY,
    ),
    "permuted": Control(
        title="permuted pairs",
        question="does it matter which rows belong together?",
        exchange="all",
    ),
}
# in comparisons with unlabelled rows, in the order of the table
FEW_LABELS = ("labelled", "same-modality", "permuted", "shuffled")
