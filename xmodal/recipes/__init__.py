"""The experiments. `RECIPES` lists them; the function ``run`` of each reads from top to bottom."""

from xmodal.cards import Cards, RecipeCard, load

RECIPES = Cards(
    "recipe",
    [
        RecipeCard(
            name="distill",
            title="your own data: teacher, no-KD control, distilled student, report",
            path="xmodal.recipes.distill:run",
            settings="xmodal.recipes.distill:Settings",
        ),
        RecipeCard(
            name="compare",
            title="several methods over seeds, with their controls",
            path="xmodal.recipes.compare:run",
            settings="xmodal.recipes.compare:Settings",
        ),
        RecipeCard(
            name="few-labels",
            title="the demo: 30 labels and many unlabelled pairs of pixels and Fourier magnitudes",
            path="xmodal.recipes.few_labels:run",
            settings="xmodal.recipes.few_labels:Settings",
            references="xmodal.recipes:references/few_labels.json",
        ),
        RecipeCard(
            name="digits-kd",
            title="all rows labelled: does a teacher that sees pixels help a student that sees Fourier magnitudes?",
            path="xmodal.recipes.digits_kd:run",
            settings="xmodal.recipes.digits_kd:Settings",
            references="xmodal.recipes:references/digits_kd.json",
            published="xmodal.recipes.digits_kd:published",
        ),
        RecipeCard(
            name="gauss-gamma",
            title="MFH, figure 2: the student gains more if teacher and student share more",
            path="xmodal.recipes.mfh_gauss.gauss_gamma:run",
            settings="xmodal.recipes.mfh_gauss.gauss_gamma:Settings",
            references="xmodal.recipes:references/gauss_gamma.json",
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, arXiv 2206.06487",
        ),
        RecipeCard(
            name="gauss-alpha",
            title="MFH, figure 3: a teacher with more information of its own need not teach better",
            path="xmodal.recipes.mfh_gauss.gauss_alpha:run",
            settings="xmodal.recipes.mfh_gauss.gauss_alpha:Settings",
            references="xmodal.recipes:references/gauss_alpha.json",
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, arXiv 2206.06487",
        ),
        RecipeCard(
            name="gauss-removal",
            title="MFH, table 2: a teacher reduced to the information of both modalities teaches better",
            path="xmodal.recipes.mfh_gauss.gauss_removal:run",
            settings="xmodal.recipes.mfh_gauss.settings:Settings",
            references="xmodal.recipes:references/gauss_removal.json",
            published="xmodal.recipes.mfh_gauss.gauss_removal:published",
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, arXiv 2206.06487",
        ),
        RecipeCard(
            name="ntdh-gauss",
            title="NTDH, Gaussian pairs: the effect of a teacher's errors on a student of another modality",
            path="xmodal.recipes.ntdh_synthetic.gauss:run",
            settings="xmodal.recipes.ntdh_synthetic.gauss:Settings",
            references="xmodal.recipes:references/ntdh_gauss.json",
            published="xmodal.recipes.ntdh_synthetic.gauss:published",
            year=2024,
            paper="Chen et al., Non-target Divergence Hypothesis, arXiv 2409.02438",
        ),
        RecipeCard(
            name="ntdh-classification",
            title="NTDH, scikit-learn's classes: divergence of the wrong classes and gain of distillation",
            path="xmodal.recipes.ntdh_synthetic.classification:run",
            settings="xmodal.recipes.ntdh_synthetic.settings:Settings",
            references="xmodal.recipes:references/ntdh_classification.json",
            published="xmodal.recipes.ntdh_synthetic.classification:published",
            year=2024,
            paper="Chen et al., Non-target Divergence Hypothesis, arXiv 2409.02438",
        ),
        RecipeCard(
            name="ntdh-mnist",
            title="NTDH on MNIST and MNIST-M: from which channels of a teacher should a student learn?",
            path="xmodal.recipes.ntdh_synthetic.mnist:run",
            settings="xmodal.recipes.ntdh_synthetic.mnist_settings:MnistSettings",
            year=2024,
            paper="Chen et al., Non-target Divergence Hypothesis, arXiv 2409.02438",
        ),
        RecipeCard(
            name="ntdh-mnist-original",
            title="the authors' script of NTDH on MNIST, with its own flags and files",
            path="xmodal.recipes.ntdh_synthetic.mnist_original:run",
            settings="xmodal.recipes.ntdh_synthetic.mnist_original:Settings",
            year=2024,
            paper="Chen et al., Non-target Divergence Hypothesis, arXiv 2409.02438",
        ),
        RecipeCard(
            name="ravdess-saliency",
            title="MFH on RAVDESS, algorithm 1: which channels of an audio network does a face network share?",
            path="xmodal.recipes.ravdess.saliency:run",
            settings="xmodal.recipes.ravdess.saliency:Settings",
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, arXiv 2206.06487",
        ),
        RecipeCard(
            name="ravdess",
            title="MFH and NTDH on RAVDESS: a face network taught by audio: general, specific or random channels",
            path="xmodal.recipes.ravdess.experiment:run",
            settings="xmodal.recipes.ravdess.experiment:Settings",
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, arXiv 2206.06487",
        ),
        RecipeCard(
            name="ravdess-original",
            title="the authors' scripts on RAVDESS, with their own flags",
            path="xmodal.recipes.ravdess.original:run",
            settings="xmodal.recipes.ravdess.original:Settings",
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, arXiv 2206.06487",
        ),
        RecipeCard(
            name="vggsound",
            title="MFH on VGGSound, in stages: video taught by general, specific or random channels of audio",
            path="xmodal.recipes.vggsound.experiment:run",
            settings="xmodal.recipes.vggsound.settings:VggsoundSettings",
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, arXiv 2206.06487",
        ),
        RecipeCard(
            name="vggsound-original",
            title="the authors' scripts on VGGSound, with their own flags and files",
            path="xmodal.recipes.vggsound.original:run",
            settings="xmodal.recipes.vggsound.original:Settings",
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, arXiv 2206.06487",
        ),
        RecipeCard(
            name="semantic-kitti",
            title="NTDH on SemanticKITTI: a class for every LiDAR point, with and without a camera teacher",
            path="xmodal.recipes.semantic_kitti.experiment:run",
            settings="xmodal.recipes.semantic_kitti.settings:Settings",
            scores="semantic-kitti",
            evaluate="xmodal.recipes.semantic_kitti.scoring:evaluate",
            evaluation="xmodal.recipes.semantic_kitti.settings:KittiEvaluation",
            weights="xmodal.recipes.semantic_kitti.experiment:open_weights",
            year=2024,
            paper="Chen et al., Non-target Divergence Hypothesis, arXiv 2409.02438",
        ),
        RecipeCard(
            name="nyu-ssc",
            title="NTDH on NYU Depth V2: a class for every voxel of a room, from depth, with and without a teacher",
            path="xmodal.recipes.nyu_ssc.experiment:run",
            settings="xmodal.recipes.nyu_ssc.settings:Settings",
            weights="xmodal.recipes.nyu_ssc.experiment:open_weights",
            year=2024,
            paper="Chen et al., Non-target Divergence Hypothesis, arXiv 2409.02438",
        ),
        RecipeCard(
            name="discom",
            title="a student for each modality without a teacher, from paired or unpaired data, with controls",
            path="xmodal.recipes.discom.experiment:run",
            settings="xmodal.recipes.discom.experiment:Settings",
            year=2024,
            paper="Ienco and Dantas, DisCoM-KD, BMVC 2024, arXiv 2408.07080",
            references="xmodal.recipes:references/discom.json",
            published="xmodal.recipes.discom.experiment:published",
        ),
        RecipeCard(
            name="dmd",
            title="three modalities that teach one another, on MOSI, MOSEI or a synthetic set: edges and gains",
            path="xmodal.recipes.dmd.experiment:run",
            settings="xmodal.recipes.dmd.experiment:Settings",
            year=2023,
            paper="Li et al., Decoupled Multimodal Distilling, CVPR 2023, arXiv 2303.13802",
            references="xmodal.recipes:references/dmd.json",
            published="xmodal.recipes.dmd.experiment:published",
        ),
    ],
)


def scoring_of(data: str) -> RecipeCard | None:
    """The card of the experiment with its own scoring of a data set; None if the metrics of the task apply."""
    return next((card for card in RECIPES.values() if data and card.scores == data), None)


def weights_of(data: str) -> RecipeCard | None:
    """The card of the experiment that reads the authors' weights for a data set; None if there is none."""
    cards = (card for card in RECIPES.values() if card.weights)
    return next((card for card in cards if getattr(load(card.settings), "DATA_SET", "") == data), None)
