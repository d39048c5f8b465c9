"""Experiments, one file each, read from top to bottom. `RECIPES` lists them."""

from xmodal.cards import Cards, RecipeCard

RECIPES = Cards(
    "recipe",
    [
        RecipeCard(
            name="distill",
            title="own data: teacher, no-KD control, student, report",
            path="xmodal.recipes.distill:run",
            settings="xmodal.recipes.distill:Settings",
        ),
        RecipeCard(
            name="compare",
            title="methods side by side over seeds, with their controls",
            path="xmodal.recipes.compare:run",
            settings="xmodal.recipes.compare:Settings",
        ),
        RecipeCard(
            name="digits-kd",
            title="the demo: does a teacher that sees pixels help a student that sees Fourier magnitudes?",
            path="xmodal.recipes.digits_kd:run",
            settings="xmodal.recipes.digits_kd:Settings",
            references="digits_kd.json",
            published="xmodal.recipes.digits_kd:published",
        ),
        RecipeCard(
            name="gauss-gamma",
            title="MFH, figure 2: the more teacher and student share, the more the student gains",
            path="xmodal.recipes.gauss_gamma:run",
            settings="xmodal.recipes.gauss_gamma:Settings",
            references="gauss_gamma.json",
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, arXiv 2206.06487",
        ),
        RecipeCard(
            name="gauss-alpha",
            title="MFH, figure 3: a teacher that knows more of its own need not teach better",
            path="xmodal.recipes.gauss_alpha:run",
            settings="xmodal.recipes.gauss_alpha:Settings",
            references="gauss_alpha.json",
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, arXiv 2206.06487",
        ),
        RecipeCard(
            name="gauss-removal",
            title="MFH, table 2: a teacher reduced to what both modalities know teaches better",
            path="xmodal.recipes.gauss_removal:run",
            settings="xmodal.recipes.gauss_removal:Settings",
            references="gauss_removal.json",
            published="xmodal.recipes.gauss_removal:published",
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, arXiv 2206.06487",
        ),
        RecipeCard(
            name="ntdh-mnist",
            title="NTDH on MNIST and MNIST-M: which channels of a teacher should a student of another modality hear?",
            path="xmodal.recipes.ntdh_mnist:run",
            settings="xmodal.recipes.ntdh_mnist:Settings",
            year=2024,
            paper="Chen et al., Non-target Divergence Hypothesis, arXiv 2409.02438",
        ),
        RecipeCard(
            name="discom",
            title="a student of each modality without a teacher, from data that need not be paired, with controls",
            path="xmodal.recipes.discom:run",
            settings="xmodal.recipes.discom:Settings",
            year=2024,
            paper="Ienco and Dantas, DisCoM-KD, BMVC 2024, arXiv 2408.07080",
            references="discom.json",
            published="xmodal.recipes.discom:published",
        ),
    ],
)
