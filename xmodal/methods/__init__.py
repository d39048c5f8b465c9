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
        MethodCard(
            name="mfh",
            title="a teacher heard through the channels that both modalities know (modality focusing)",
            path="xmodal.methods.mfh:build",
            settings="xmodal.methods.settings:MFHSettings",
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, ICLR 2023, arXiv 2206.06487",
            teacher="frozen",
            paired=True,
            modalities="any to any",
            tasks=TASKS,
        ),
        MethodCard(
            name="ntdh",
            title="channels and samples masked where the modalities disagree about the wrong classes",
            path="xmodal.methods.ntdh:build",
            settings="xmodal.methods.settings:NTDHSettings",
            year=2024,
            paper="Chen et al., Non-target Divergence Hypothesis, arXiv 2409.02438",
            teacher="frozen",
            paired=True,
            modalities="any to any",
            tasks=("multiclass",),
        ),
        MethodCard(
            name="discom",
            title="a student of each modality at once and no teacher: embeddings split in three, modalities unlearned",
            path="xmodal.methods.discom:build",
            settings="xmodal.methods.settings:DisCoMSettings",
            year=2024,
            paper="Ienco and Dantas, DisCoM-KD, BMVC 2024, arXiv 2408.07080",
            teacher="none",
            paired=False,
            modalities="two or more",
            tasks=TASKS,
        ),
    ],
)
