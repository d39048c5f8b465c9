"""Settings of the methods: one class per method, whose fields become flags.

They are in a file without torch because `--help` prints them: importing a method would take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xmodal.flags import Flag, flag_of
from xmodal.methods.options import DistillationOptions


class MethodSettings(BaseModel):
    """Base of all: unknown keys are refused, and values do not change after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        """Accept earlier names of fields, so that the settings.json of an older run can be repeated."""
        if not isinstance(values, Mapping):
            return values
        values = dict(values)
        for name, field in cls.model_fields.items():
            for alias in flag_of(field.metadata).aliases:
                if alias in values and name in values:
                    raise ValueError(f"{alias} is an earlier name of {name}, and both were given. Leave out {alias}.")
                if alias in values:
                    values[name] = values.pop(alias)
        return values


class SupervisedSettings(MethodSettings):
    """Supervised training has no coefficients of its own."""


class DistilSettings(MethodSettings):
    """Coefficients of distillation from a frozen teacher."""

    loss: tuple[str, ...] = Field(
        (), description="NAME, NAME:WEIGHT or NAME(OPTION=1) of `xmodal list losses`, several added; default: kl"
    )
    temperature: float | None = Field(None, gt=0, description="softening τ; default: that of each loss (kl: 4)")
    kd_weight: float = Field(0.5, ge=0, description="weight of the teacher's terms")
    task_weight: float = Field(0.5, ge=0, description="weight of the loss of labels")
    student_layer: tuple[str, ...] = Field((), description="modules of the student whose outputs are compared")
    teacher_layer: tuple[str, ...] = Field((), description="modules of the teacher whose outputs are compared")
    pixels: Literal["labelled", "projected", "scored", "all"] = Field(
        "labelled",
        description="where dense outputs are compared; projected: wherever something was measured; scored: where "
        "metrics look",
    )
    reduction: Literal["pixel", "reference"] = Field(
        "pixel", description="mean over these places; reference: over all places and classes, as in NTDH's code"
    )
    weighting: Literal["alike", "classes"] = Field(
        "alike", description="of places: all alike, or by the class weight of what the teacher predicts there"
    )
    labels: bool = Field(True, description="learn from labels too; --no-labels: from the teacher alone")

    def options(self) -> DistillationOptions:
        """The part that `KD`, `MFH` and `NTDH` share."""
        named = set(DistillationOptions.__dataclass_fields__) & set(type(self).model_fields) - {"task_weight"}
        return DistillationOptions(
            losses=self.loss,
            task_weight=self.task_weight if self.labels else 0.0,
            **{name: getattr(self, name) for name in named},
        )


class KDSettings(DistilSettings):
    """Coefficients of knowledge distillation."""

    standardise: bool = Field(False, description="compare outputs with mean 0 and spread 1 in each row")
    kd_warmup: int = Field(0, ge=0, description="epochs over which kd_weight grows from 0")


class MaskedSettings(DistilSettings):
    """Coefficients of distillation from a teacher some of whose channels are removed."""

    layer: Annotated[str, Flag(aliases=("place",))] = Field(
        "embedding", description="module of the teacher whose channels are ranked and removed"
    )
    remove: Literal["least", "most", "random", "index"] = Field(
        "least", description="channels to remove: of least or most saliency, random ones, or the last ones (index)"
    )
    fill: Literal["mean", "batch_mean", "zero"] = Field("mean", description="value in place of a removed channel")
    permutations: Annotated[int, Field(ge=1)] | Literal["exact"] = Field(
        "exact", description="permutations per channel; exact: their mean in closed form where there is one, else 10"
    )


class MFHSettings(MaskedSettings):
    """Modality-general distillation."""

    ratio: float | Literal["auto"] = Field(
        "auto", description="share of channels to remove; auto: the best on validation"
    )
    channels: tuple[int, ...] = Field((), description="numbers of the channels to keep, instead of a ranking")
    joint: bool = Field(True, description="use the teacher of the joint training; --no-joint: the ordinary one")
    distance: Literal["mse", "l1", "ncjsd"] = Field("mse", description="distance of outputs that ranks the channels")
    sweep_epochs: int = Field(10, ge=1, description="epochs of training for each ratio that auto tries")

    @model_validator(mode="after")
    def _is_a_share(self) -> MFHSettings:
        if self.ratio != "auto" and not 0 <= self.ratio < 1:
            raise ValueError(f"ratio {self.ratio}: expected a share from 0 to below 1, or auto.")
        return self


class NTDHSettings(MaskedSettings):
    """Distillation with the masks of the non-target divergence hypothesis."""

    mask: Literal["channels", "samples", "both", "none"] = Field(
        "channels", description="mask channels of the teacher, samples, or both"
    )
    ratio: float = Field(0.75, ge=0, lt=1, description="share of the teacher's channels to remove")
    fill: Literal["mean", "batch_mean", "zero"] = Field("zero", description="value in place of a removed channel")
    disturb: Literal["permute", "zero"] = Field("permute", description="how a channel is disturbed to rank it")
    agreement: Literal["ncjsd", "mse"] = Field("ncjsd", description="distance of outputs in joint training and ranking")
    rank_pixels: int | None = Field(
        None,
        ge=1,
        description="pixels or voxels to rank channels on, in whole frames spread over training; default: all",
    )
    threshold: float = Field(
        0.996, ge=-1, le=1, description="cosine from which a sample counts although the teacher is wrong"
    )
    detach: bool = Field(True, description="no gradient through the weights of samples")
    cosine: Literal["logits", "probabilities"] = Field("logits", description="outputs whose cosine is measured")
    scale_logits: bool = Field(False, description="weights multiply the logits inside kl, not its values")
    as_published: bool = Field(False, description="as the authors' code: --no-detach --scale-logits")

    @model_validator(mode="after")
    def _published(self) -> NTDHSettings:
        if self.as_published:
            # the model is frozen for its users; `model_copy` would give the caller another object than it validates
            object.__setattr__(self, "detach", False)
            object.__setattr__(self, "scale_logits", True)
        return self


class DisCoMTerms(MethodSettings):
    """Coefficients of disentanglement without a teacher."""

    task_weight: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of each modality's classifier")
    auxiliary_weight: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of the shared classifier")
    adversarial_weight: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="weight of hiding the modality from the adversary"
    )
    modality_weight: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight of predicting the modality")
    orthogonality_weight: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="weight of the parts' orthogonality"
    )
    domain_targets: Literal["index", "released"] = Field(
        "index", description="targets of the modality heads; released: those of the authors' code, two modalities"
    )
    perp: Literal["abs", "signed", "squared"] = Field("abs", description="form of the cosine that is minimised")
    reversal: float = Field(1.0, ge=0, allow_inf_nan=False, description="strength λ of the reversed gradient")
    reversal_ramp: bool = Field(False, description="grow the strength from 0 during training")
    adversary_hidden: int = Field(0, ge=0, description="width of a hidden layer of the adversary; 0: linear")
    regression_loss: Literal["mse", "huber"] = Field("mse", description="loss of values, in standardised units")


class DisCoMSettings(DisCoMTerms):
    """Coefficients of disentanglement without a teacher, and the modalities that take part."""

    modalities: tuple[str, ...] = Field((), description="which train together; default: those of teacher and student")


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Prior = Literal["reference", "uniform", "auto", "given"]
Repr = Literal["off", "l1", "l2", "cosine", "min_cosine"]


class DMDTerms(MethodSettings):
    """Coefficients of mutual distillation over graphs."""

    task_weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="weight of the loss of labels of every head")
    regression_loss: Literal["l1", "mse"] = Field("l1", description="loss of values")
    distil_weight: Weight = Field(0.05, description="λ1, weight of both graphs; 0: no distillation")
    logit_weight: Weight = Field(1.0, description="weight within a graph of the distance of outputs")
    representation_weight: Weight = Field(10.0, description="weight within a graph of the distance of features")
    regularisation_weight: Weight = Field(10.0, description="weight within a graph of the distance from its prior")
    homo_representation: Repr = Field("off", description="distance of homogeneous features; off: left out")
    hetero_representation: Repr = Field("min_cosine", description="the same for heterogeneous ones; min_cosine repels")
    homo_prior: Prior = Field("reference", description="prior of the homogeneous graph's edges")
    hetero_prior: Prior = Field("reference", description="prior of the heterogeneous graph's edges")
    homo_edges: tuple[str, ...] = Field((), description="for the prior given: TEACHER>STUDENT:VALUE, the others 0")
    hetero_edges: tuple[str, ...] = Field((), description="the same for the heterogeneous graph")
    reconstruction_weight: Weight = Field(0.1, description="weight of reconstructing each sequence from its parts")
    cycle_weight: Weight = Field(0.1, description="weight of the private part's distance after reconstruction")
    margin_weight: Weight = Field(0.01, description="weight of the margin between unlike targets")
    margin: Weight = Field(0.15, description="margin per unit of difference between targets")
    margin_pairs: Literal["code", "paper"] = Field("code", description="pairs of rows to compare; paper: see docs (20)")
    orthogonality_weight: Weight = Field(0.01, description="weight of the two parts' orthogonality")
    orthogonality: Literal["frame", "flat", "legacy_batch"] = Field(
        "frame", description="axis of the cosine: channels of a step, of all steps, or the batch (1)"
    )
    orthogonality_abs: bool = Field(False, description="penalise opposite directions too (2)")
    round_targets: bool = Field(True, description="compare targets to four decimals (21)")
    as_published: bool = Field(
        False, description="as the authors' code: --orthogonality legacy_batch --no-round-targets"
    )

    @model_validator(mode="after")
    def _published(self) -> DMDTerms:
        if self.as_published:
            # as in NTDHSettings: the model is frozen, and only a validator may still complete it
            object.__setattr__(self, "orthogonality", "legacy_batch")
            object.__setattr__(self, "round_targets", False)
        return self


Share = Annotated[float, Field(ge=0, lt=1)]


class DMDSettings(DMDTerms):
    """Coefficients of mutual distillation over graphs, the network, and the modalities that take part.

    Defaults of the network are those published for MOSI, where one number is published for all modalities.
    """

    modalities: tuple[str, ...] = Field(
        (), description="modalities in the order of the graphs' nodes; default: those of teacher and student"
    )
    width: int = Field(50, ge=4, description="width of every part")
    heads: int = Field(10, ge=1, description="heads of the transformers; the width must be a multiple")
    layers: int = Field(4, ge=1, description="layers of the transformers; those of the memory have at least 3")
    kernel: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="kernel of the projection: one for all modalities or one for each; default: 5 at most"
    )
    input_dropout: tuple[Share, ...] = Field((0.0,), description="on input features; one for all, or one for each")
    attention_dropout: tuple[Share, ...] = Field(
        (0.2,), description="on attention to a modality; one for all, or one for each"
    )
    embed_dropout: Share = Field(0.2, description="after the position codes")
    relu_dropout: Share = Field(0.0, description="inside the transformers' feed-forward part")
    residual_dropout: Share = Field(0.0, description="on the transformers' branches")
    output_dropout: Share = Field(0.5, description="inside every head")
    causal: bool = Field(True, description="attention reads no later steps")
    mask_padding: bool = Field(
        False, description="use MODALITY.lengths: padding is not read and is never the last step (22)"
    )
    gate: Literal["sigmoid", "multiply"] = Field(
        "sigmoid", description="a gate replaces the feature, or scales it (24)"
    )
    text_encoder: Path | None = Field(None, description="folder of a text encoder for MODALITY.tokens")
    fine_tune: bool = Field(True, description="train the text encoder; --no-fine-tune: freeze it")


class PMFSettings(MethodSettings):
    """The network of two streams, and the coefficients of their losses."""

    lidar: str = Field("", description="modality of the LiDAR stream; default: the student's first")
    camera: str = Field("", description="modality of the camera stream; default: the first other one")
    backbone: Literal[
        "camera_resnet10", "camera_resnet34", "camera_resnet50", "camera_resnet101", "camera_resnet152"
    ] = Field("camera_resnet34", description="network of the camera stream")
    width: int = Field(32, ge=2, description="channels of the LiDAR stream at full resolution")
    channels: int | None = Field(None, ge=1, description="width of the camera network's last stage; default: its own")
    imagenet: Path | None = Field(None, description="torchvision's .pth file with weights for the camera network")
    perception_weight: float = Field(0.5, ge=0, description="γ, weight of the term between the streams")
    threshold: Share = Field(0.7, description="τ, confidence from which a stream guides the other at a pixel")
    detach: bool = Field(True, description="no gradient through the guiding stream; --no-detach: as published")
    hybrid: bool = Field(True, description="AdamW for LiDAR, SGD for camera; --no-hybrid: the run's optimiser")
    lidar_weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    camera_weight_decay: float = Field(1e-5, ge=0, description="of SGD")
