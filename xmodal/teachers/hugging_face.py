"""A teacher in a local folder of the package transformers, with its own preprocessing; nothing is downloaded.

The kind of model is read from ``config.json``: a classifier of images, sounds or texts gives logits, a model without a
head gives embeddings. Pictures and sounds go through the processor that the folder holds; text is token ids as the
data has them, and ids of padding are left out of the attention.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from xmodal.errors import InputError, MissingExtra
from xmodal.files import read_text
from xmodal.models.network import evaluating
from xmodal.teachers.functions import Function, Raw

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
HEADS = {  # end of an architecture's name → class of the package that loads it
    "ForImageClassification": "AutoModelForImageClassification",
    "ForAudioClassification": "AutoModelForAudioClassification",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
}


def is_model_folder(path: Path) -> bool:
    """Whether a folder is one of the package transformers."""
    if not (path / CONFIG).is_file():
        return False
    content = _json(path / CONFIG)
    return "model_type" in content


def model_function(path: Path) -> tuple[Function, str, tuple[str, ...]]:
    """A function of raw inputs, the kind of its outputs (``logits``, ``embeddings``), and the names of its classes."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("A teacher in a folder of transformers", "transformers", "text") from error
    if not (path / "model.safetensors").is_file() and not (path / "model.safetensors.index.json").is_file():
        raise InputError(
            f"{path} has no model.safetensors: weights in formats that can run code are not read. Save the model again "
            "with save_pretrained, which writes safetensors."
        )
    content = _json(path / CONFIG)
    architecture = (content.get("architectures") or [""])[0]
    head = next((name for end, name in HEADS.items() if architecture.endswith(end)), "")
    if head == HEADS["ForSequenceClassification"] and "feature_extractor_type" in _processor(path):
        # classifiers of sounds have this name too, such as Wav2Vec2ForSequenceClassification
        head = HEADS["ForAudioClassification"]
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    try:
        model = getattr(transformers, head or "AutoModel").from_pretrained(path, **options).eval()
        prepare = _preparation(path, model.config, transformers)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"The model in {path} can't be loaded: {error}") from error
    labels = getattr(model.config, "id2label", None) or {}
    names = tuple(str(labels[number]) for number in sorted(labels)) if head else ()

    def run(inputs: Raw) -> NDArray[Any]:
        if len(inputs) != 1:
            raise InputError(
                f"The model in {path} reads one modality, and the teacher has {', '.join(inputs)}. Name one with "
                "--teacher."
            )
        with evaluating(model):
            answer = model(**prepare(next(iter(inputs.values()))))
        outputs: NDArray[Any] = (answer.logits if head else _pooled(answer)).float().numpy()
        return outputs

    return run, "logits" if head else "embeddings", names


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is no JSON ({error}). Copy the folder again.") from None
    return content if isinstance(content, dict) else {}


def _processor(path: Path) -> dict[str, Any]:
    """The settings of the folder's processor; empty: it has none."""
    return _json(path / PREPROCESSOR) if (path / PREPROCESSOR).is_file() else {}


def _pooled(answer: Any) -> torch.Tensor:
    """One embedding for each row: the model's own, or the mean over its positions."""
    pooled = getattr(answer, "pooler_output", None)
    states: torch.Tensor = answer.last_hidden_state if pooled is None else pooled
    return states if states.ndim == 2 else states.flatten(2).mean(2) if states.ndim > 3 else states.mean(1)


def _preparation(path: Path, config: Any, transformers: Any) -> Any:
    """A function from a raw array (rows, …) to the keyword arguments of a model."""
    processor = _processor(path)
    if "image_processor_type" in processor or "image_mean" in processor:
        return _pictures(path, transformers)
    if "feature_extractor_type" in processor:
        return _sounds(path, transformers)
    if processor:
        raise InputError(f"{path / PREPROCESSOR} is no processor of pictures or sounds, which are the ones known here.")
    return _tokens(config)


def _pictures(path: Path, transformers: Any) -> Any:
    # the processors that run on Pillow need no torchvision
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(path, local_files_only=True, backend="pil")
    except TypeError:
        processor = transformers.AutoImageProcessor.from_pretrained(path, local_files_only=True, use_fast=False)

    def prepare(raw: NDArray[Any]) -> dict[str, Any]:
        if raw.ndim != 4:
            raise InputError(f"The model in {path} reads pictures (rows, channels, height, width), not {raw.shape}.")
        pictures = np.repeat(raw, 3, axis=1) if raw.shape[1] == 1 else raw
        pictures = pictures if pictures.dtype == np.uint8 else pictures.astype(np.float32)
        return dict(processor(list(pictures), return_tensors="pt", input_data_format="channels_first"))

    return prepare


def _sounds(path: Path, transformers: Any) -> Any:
    extractor = transformers.AutoFeatureExtractor.from_pretrained(path, local_files_only=True)

    def prepare(raw: NDArray[Any]) -> dict[str, Any]:
        waves = raw[:, 0] if raw.ndim == 3 and raw.shape[1] == 1 else raw
        if waves.ndim != 2:
            raise InputError(f"The model in {path} reads waveforms (rows, samples), not {raw.shape}.")
        rate = extractor.sampling_rate
        return dict(extractor(list(waves.astype(np.float32)), sampling_rate=rate, return_tensors="pt", padding=True))

    return prepare


def _tokens(config: Any) -> Any:
    padding = getattr(config, "pad_token_id", None)

    def prepare(raw: NDArray[Any]) -> dict[str, Any]:
        ids = raw[:, 0] if raw.ndim == 3 else raw
        whole = ids.dtype.kind in "iu" or bool((ids == np.round(ids)).all())
        if ids.ndim != 2 or not whole:
            raise InputError(f"The model reads token ids (rows, length) as whole numbers, not {raw.shape} {raw.dtype}.")
        tokens = torch.from_numpy(ids.astype(np.int64))
        mask = torch.ones_like(tokens) if padding is None else (tokens != padding).long()
        return {"input_ids": tokens, "attention_mask": mask}

    return prepare
