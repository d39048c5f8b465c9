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
    ],
)
