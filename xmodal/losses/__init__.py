"""Losses, pure functions of tensors: one family per file, the equation on top. `LOSSES` lists those that distil."""

from xmodal.cards import Cards, LossCard

LOSSES = Cards(
    "loss",
    [
        LossCard(
            name="kl",
            title="temperature-scaled KL divergence of class probabilities",
            path="xmodal.losses.logits:kl",
            year=2015,
            paper="Hinton et al., Distilling the Knowledge in a Neural Network, arXiv 1503.02531",
            needs=("logits",),
        ),
        LossCard(
            name="bernoulli_kl",
            title="the same for independent yes-or-no outputs",
            path="xmodal.losses.logits:bernoulli_kl",
            needs=("logits",),
        ),
        LossCard(
            name="mse",
            title="mean squared difference of the outputs",
            path="xmodal.losses.logits:mse",
            year=2014,
            paper="Ba and Caruana, Do Deep Nets Really Need to be Deep?, arXiv 1312.6184",
            needs=("logits",),
        ),
    ],
)
