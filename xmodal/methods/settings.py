"""What each method can be told: one class per method, whose fields become flags.

They stand apart from the methods because help texts must come at once, and a method cannot be imported without torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class MethodSettings(BaseModel):
    """What all of them share: unknown keys are refused, and nothing changes after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SupervisedSettings(MethodSettings):
    """Supervised training has no coefficients of its own."""


class DistilSettings(MethodSettings):
    """Coefficients of learning from a teacher's answers."""

    loss: tuple[str, ...] = Field(
        (), description="NAME, NAME:WEIGHT or NAME(OPTION=1) of `xmodal list losses`, several added; default: kl"
    )
    temperature: float | None = Field(None, gt=0, description="softening τ; default: each loss's own (kl: 4)")
    kd_weight: float = Field(0.5, ge=0, description="weight of the teacher's term")
    task_weight: float = Field(0.5, ge=0, description="weight of the label's term")
    student_layer: tuple[str, ...] = Field((), description="module of the student whose features are compared")
    teacher_layer: tuple[str, ...] = Field((), description="module of the teacher whose features are compared")
    pixels: Literal["labelled", "projected", "scored", "all"] = Field(
        "labelled",
        description="where a teacher of dense targets is heard; projected: wherever something was measured; scored: "
        "where metrics look",
    )
    reduction: Literal["pixel", "reference"] = Field(
        "pixel", description="mean over these places; reference: over all places and classes, as in NTDH's code"
    )
    weighting: Literal["alike", "classes"] = Field(
        "alike", description="of places: all alike, or by the weight of the class that the teacher sees there"
    )
    labels: bool = Field(True, description="learn from labels too; --no-labels: from the teacher alone")


class KDSettings(DistilSettings):
    """Coefficients of knowledge distillation."""

    standardise: bool = Field(False, description="compare outputs with mean 0 and spread 1 in each row")
    kd_warmup: int = Field(0, ge=0, description="epochs over which the teacher's term grows from nothing")


class MaskedSettings(DistilSettings):
    """Which channels of a teacher are removed."""

    place: str = Field("embedding", description="module of the teacher whose channels are ranked and removed")
    remove: Literal["least", "most", "random", "index"] = Field(
        "least", description="which channels go: by saliency, any, or the last by number (index)"
    )
    fill: Literal["mean", "batch_mean", "zero"] = Field("mean", description="what stands in for a removed channel")
    permutations: Annotated[int, Field(ge=1)] | Literal["exact"] = Field(
        "exact", description="exchanges per channel; exact: the mean of all where it is known, elsewhere 10"
    )


class MFHSettings(MaskedSettings):
    """Modality-general distillation."""

    ratio: float | Literal["auto"] = Field("auto", description="share of channels to remove; auto: tried on validation")
    channels: tuple[int, ...] = Field((), description="channels to keep, in place of a ranking")
    joint: bool = Field(True, description="the teacher of the joint training; --no-joint: the ordinary one")
    distance: Literal["mse", "l1", "ncjsd"] = Field("mse", description="how a broken agreement is measured")
    sweep_epochs: int = Field(10, ge=1, description="training of each ratio that auto tries")

    @model_validator(mode="after")
    def _a_share(self) -> MFHSettings:
        if self.ratio != "auto" and not 0 <= self.ratio < 1:
            raise ValueError(f"ratio {self.ratio}: expected a share from 0 to below 1, or auto.")
        return self


class NTDHSettings(MaskedSettings):
    """Distillation with the masks of the non-target divergence hypothesis."""

    mask: Literal["channels", "samples", "both", "none"] = Field("channels", description="what is masked")
    ratio: float = Field(0.75, ge=0, lt=1, description="share of the teacher's channels to remove")
    fill: Literal["mean", "batch_mean", "zero"] = Field("zero", description="what stands in for a removed channel")
    disturb: Literal["permute", "zero"] = Field("permute", description="how a channel is disturbed to rank it")
    agreement: Literal["ncjsd", "mse"] = Field("ncjsd", description="what joint training and ranking compare")
    threshold: float = Field(0.996, ge=-1, le=1, description="cosine from which a wrong teacher's sample counts")
    detach: bool = Field(True, description="no gradient through the weights of samples")
    cosine: Literal["logits", "probabilities"] = Field("logits", description="of what similarity is measured")
    scale_logits: bool = Field(False, description="weights multiply the logits inside kl, not its values")
    as_published: bool = Field(False, description="as the authors' code: --no-detach --scale-logits")

    @model_validator(mode="after")
    def _published(self) -> NTDHSettings:
        if self.as_published:
            object.__setattr__(self, "detach", False)
            object.__setattr__(self, "scale_logits", True)
        return self


class DisCoMTerms(MethodSettings):
    """Coefficients of disentanglement without a teacher."""

    task_weight: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of each modality's own classifier")
    auxiliary_weight: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of the shared classifier")
    adversarial_weight: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of hiding the modality")
    modality_weight: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of telling the modality")
    orthogonality_weight: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of keeping parts apart")
    domain_targets: Literal["index", "released"] = Field(
        "index", description="targets of the modality heads; released: those of the authors' code, two modalities"
    )
    perp: Literal["abs", "signed", "squared"] = Field("abs", description="form of the cosine that is made small")
    reversal: float = Field(1.0, ge=0, allow_inf_nan=False, description="strength λ of the reversed gradient")
    reversal_ramp: bool = Field(False, description="let the strength grow from 0 with training")
    adversary_hidden: int = Field(0, ge=0, description="width of a hidden layer of the adversary; 0: linear")
    regression_loss: Literal["mse", "huber"] = Field("mse", description="loss of values, in standardised units")


class DisCoMSettings(DisCoMTerms):
    """Coefficients of disentanglement without a teacher, and who takes part."""

    modalities: tuple[str, ...] = Field((), description="which train together; default: those of teacher and student")


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Prior = Literal["reference", "uniform", "auto", "given"]
Repr = Literal["off", "l1", "l2", "cosine", "min_cosine"]


class DMDTerms(MethodSettings):
    """Coefficients of mutual distillation over graphs."""

    task_weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="weight of the labels' loss of every head")
    regression_loss: Literal["l1", "mse"] = Field("l1", description="loss of values")
    distil_weight: Weight = Field(0.05, description="λ1, weight of both graphs; 0: no distillation")
    logit_weight: Weight = Field(1.0, description="weight within a graph of the distance of outputs")
    representation_weight: Weight = Field(10.0, description="weight within a graph of what representations learn")
    regularisation_weight: Weight = Field(10.0, description="weight within a graph of the pull to its prior")
    homo_representation: Repr = Field("off", description="what homogeneous representations learn from each other")
    hetero_representation: Repr = Field("min_cosine", description="the same for heterogeneous; min_cosine repels")
    homo_prior: Prior = Field("reference", description="prior of the homogeneous graph's edges")
    hetero_prior: Prior = Field("reference", description="prior of the heterogeneous graph's edges")
    homo_edges: tuple[str, ...] = Field((), description="for the prior given: TEACHER>STUDENT:VALUE, the others 0")
    hetero_edges: tuple[str, ...] = Field((), description="the same for the heterogeneous graph")
    reconstruction_weight: Weight = Field(0.1, description="weight of rebuilding each sequence from its two parts")
    cycle_weight: Weight = Field(0.1, description="weight of finding the private part again in what was rebuilt")
    margin_weight: Weight = Field(0.01, description="weight of keeping equal targets together")
    margin: Weight = Field(0.15, description="margin per unit of difference between targets")
    margin_pairs: Literal["code", "paper"] = Field("code", description="rows that are compared; paper: see docs (20)")
    orthogonality_weight: Weight = Field(0.01, description="weight of keeping the two parts apart")
    orthogonality: Literal["frame", "flat", "legacy_batch"] = Field(
        "frame", description="what a cosine is taken over: channels of a step, of all steps, or the batch (1)"
    )
    orthogonality_abs: bool = Field(False, description="push to a right angle, not only out of the same direction (2)")
    round_targets: bool = Field(True, description="targets are equal when four decimals are (21)")
    as_published: bool = Field(
        False, description="as the authors' code: --orthogonality legacy_batch --no-round-targets"
    )

    @model_validator(mode="after")
    def _published(self) -> DMDTerms:
        if self.as_published:
            object.__setattr__(self, "orthogonality", "legacy_batch")
            object.__setattr__(self, "round_targets", False)
        return self


Share = Annotated[float, Field(ge=0, lt=1)]


class DMDSettings(DMDTerms):
    """Coefficients of mutual distillation over graphs, the network, and who takes part.

    The network's defaults are those published for MOSI where they are one number.
    """

    modalities: tuple[str, ...] = Field(
        (), description="which train together, in the order of the graphs' nodes; default: those of teacher and student"
    )
    width: int = Field(50, ge=4, description="width of every part")
    heads: int = Field(10, ge=1, description="heads of the transformers; the width must be a multiple")
    layers: int = Field(4, ge=1, description="layers of the transformers; those of the memory have at least 3")
    kernel: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="steps that the projection sees: one for all modalities or one for each; default: 5 at most"
    )
    input_dropout: tuple[Share, ...] = Field((0.0,), description="on single features; one for all, or one for each")
    attention_dropout: tuple[Share, ...] = Field(
        (0.2,), description="on attention to a modality; one for all, or one for each"
    )
    embed_dropout: Share = Field(0.2, description="behind the position codes")
    relu_dropout: Share = Field(0.0, description="inside the transformers' feed-forward part")
    residual_dropout: Share = Field(0.0, description="on the transformers' branches")
    output_dropout: Share = Field(0.5, description="inside every head")
    causal: bool = Field(True, description="a step sees no later ones")
    mask_padding: bool = Field(
        False, description="use MODALITY.lengths: padding is neither read nor the last step (22)"
    )
    gate: Literal["sigmoid", "multiply"] = Field(
        "sigmoid", description="a gate replaces the feature, or scales it (24)"
    )
    text_encoder: Path | None = Field(None, description="folder of a text encoder that reads MODALITY.tokens")
    fine_tune: bool = Field(True, description="train the text encoder too; --no-fine-tune: as it is")


class PMFSettings(MethodSettings):
    """The network of two streams, and what they learn from one another."""

    lidar: str = Field("", description="modality of the stream that takes in the other; default: the student's first")
    camera: str = Field("", description="modality of the stream that is taken in; default: the first other one")
    backbone: Literal[
        "camera_resnet10", "camera_resnet34", "camera_resnet50", "camera_resnet101", "camera_resnet152"
    ] = Field("camera_resnet34", description="the camera stream's network")
    width: int = Field(32, ge=2, description="channels of the LiDAR stream at full resolution")
    channels: int | None = Field(None, ge=1, description="of the camera network's last stage; default: its own")
    imagenet: Path | None = Field(None, description="torchvision's .pth file with weights for the camera network")
    perception_weight: float = Field(0.5, ge=0, description="γ, of what the streams learn from one another")
    threshold: Share = Field(0.7, description="τ, how sure a stream must be of a pixel to guide the other")
    detach: bool = Field(True, description="the stream that guides is a constant; --no-detach: as published")
    hybrid: bool = Field(True, description="AdamW for LiDAR, SGD for camera; --no-hybrid: the run's optimiser for both")
    lidar_weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    camera_weight_decay: float = Field(1e-5, ge=0, description="of SGD")
