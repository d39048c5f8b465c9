"""A pretrained text encoder in front of a network: token ids in, features per token out.

    tokens (rows, 3, T): ids, mask, segments ──transformer──▶ last hidden states (rows, width, T)

It is read from a local folder in the layout of the package transformers (``config.json`` and ``model.safetensors``).
Nothing is downloaded, and weights in formats that can run code are not read. Needs the extra ``text``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xmodal.errors import InputError, MissingExtra
from xmodal.models.dmd.text_memory import TextMemory

PURPOSE = "A text encoder"
FAMILIES = ("bert", "roberta")  # these read ids, mask and segments, and return 'last_hidden_state'


class TextEncoder(nn.Module):
    """Features from tokens.

    Args:
        model: from the package transformers, with ``config.hidden_size``.
        fine_tune: train it too; otherwise it has no gradients and stays in eval mode, so the features of a sentence are
            always the same.
        memory: of the features of a frozen encoder; None: they are computed each time.

    Attributes:
        description: JSON values from which `build_text_encoder` builds an untrained copy.
    """

    def __init__(self, model: nn.Module, *, fine_tune: bool = False, memory: TextMemory | None = None) -> None:
        super().__init__()
        self.model, self.fine_tune = model, fine_tune
        self.memory = None if fine_tune else memory
        config: Any = model.config
        self.width = int(config.hidden_size)
        # A path of the machine that trained the student does not belong in its file.
        settings = {key: value for key, value in config.to_dict().items() if key != "_name_or_path"}
        self.description: dict[str, Any] = {"config": settings, "fine_tune": fine_tune}
        if not fine_tune:
            self.requires_grad_(False).eval()
            self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> TextEncoder:
        """Set the training mode; a frozen encoder stays in eval mode."""
        super().train(mode and self.fine_tune)
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (rows, 3, T) to features (rows, width, T)."""
        if tokens.ndim != 3 or tokens.shape[1] != 3:
            raise InputError(
                f"Tokens have shape {tuple(tokens.shape)}: expected (rows, 3, time) with token ids, mask and segments. "
                "Prepare them again, or use text features instead."
            )
        if self.memory is None:
            return self._encode(tokens)
        device = tokens.device.type
        mixed = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else ""
        return self.memory.look_up(tokens, self._encode, f"{next(self.parameters()).dtype}{mixed}")

    def forget(self) -> None:
        """Drop features that were computed with earlier weights."""
        if self.memory is not None:
            self.memory.forget()

    def _encode(self, tokens: Tensor) -> Tensor:
        ids, mask, segments = tokens.long().unbind(1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.fine_tune):
            outputs = self.model(input_ids=ids, attention_mask=mask.float(), token_type_ids=segments)
        states: Tensor = outputs.last_hidden_state
        return states.transpose(1, 2)


def _forget(encoder: TextEncoder, keys: Any) -> None:
    # `keys` belongs to the signature of such a hook
    encoder.forget()


def load_text_encoder(folder: Path | str, *, fine_tune: bool = False) -> TextEncoder:
    """A text encoder from a local folder, for training: frozen, it encodes each text once.

    Args:
        folder: contains ``config.json`` and ``model.safetensors``.
        fine_tune: see `TextEncoder`.
    """
    folder = Path(folder)
    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} has no {' and no '.join(missing)}: expected the folder of a text encoder as the package "
            "transformers saves it (save_pretrained). It is never downloaded; weights must be safetensors."
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'config.json'} is not JSON ({error}). Copy the folder again.") from error
    _check_config(config, str(folder))
    AutoModel = _transformers().AutoModel
    # The package raises many types of errors, all of them about this folder.
    try:
        model = AutoModel.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except Exception as error:
        raise InputError(f"The text encoder in {folder} cannot be read: {error}") from error
    return TextEncoder(model, fine_tune=fine_tune, memory=TextMemory())


def build_text_encoder(*, config: Mapping[str, Any], fine_tune: bool = False) -> TextEncoder:
    """An untrained text encoder from JSON values, for the reader of a saved student.

    Args:
        config: the content of ``config.json``, with ``model_type``.
        fine_tune: see `TextEncoder`.
    """
    _check_config(config, "The description")
    transformers = _transformers()
    settings = {key: value for key, value in config.items() if key != "model_type"}
    built = transformers.AutoConfig.for_model(config["model_type"], **settings)
    return TextEncoder(transformers.AutoModel.from_config(built, trust_remote_code=False), fine_tune=fine_tune)


def _check_config(config: Any, where: str) -> None:
    kind = config.get("model_type") if isinstance(config, Mapping) else None
    if kind not in FAMILIES:
        raise InputError(f"{where} names a model of type {kind!r}: expected one of {', '.join(FAMILIES)}.")
    # With this key the package would import Python code from the folder.
    if "auto_map" in config:
        raise InputError(f"{where} contains code ('auto_map'), which is not run. Use a model without code.")


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra(PURPOSE, "transformers", "text") from error
    return transformers
