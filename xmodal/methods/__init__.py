"""Methods, one file per paper. `METHODS` announces each of them once, to commands, common tests and README."""

from xmodal.cards import Cards, MethodCard

TASKS = ("multiclass", "binary", "multilabel", "regression")

METHODS = Cards(
    "method",
    [
        MethodCard(
            name="supervised",
            title="labels alone: the no-KD control, and how teachers are trained",
            path="xmodal.methods.supervised:build",
            settings="xmodal.methods.settings:SupervisedSettings",
            teacher="none",
            paired=False,
            modalities="one or more",
            tasks=TASKS,
        ),
        MethodCard(
            name="kd",
            title="a student learns the softened outputs of a frozen teacher",
            path="xmodal.methods.kd:build",
            settings="xmodal.methods.settings:KDSettings",
            year=2015,
            paper="Hinton et al., Distilling the Knowledge in a Neural Network, arXiv 1503.02531",
            teacher="frozen",
            paired=True,
            modalities="any to any",
            tasks=TASKS,
        ),
    ],
)
