"""Data sets by name, and own data by its folder. Importing this package imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.cards import Cards, DataCard, load
from xmodal.errors import InputError

if TYPE_CHECKING:
    from xmodal.data.base import Data

__all__ = ["DATA", "open_data", "reopen"]

DATA = Cards(
    "data set",
    [
        DataCard(
            name="digits",
            title="eight views of 1,797 handwritten digits; built in, seconds on a CPU",
            path="xmodal.data.digits:load",
            settings="xmodal.data.digits:DigitsSettings",
            make="xmodal.data.digits:make",
            prepare="xmodal.data.digits:prepare",
            modalities=("image", "rows", "fourier", "profile", "coarse", "noisy", "top", "bottom"),
            year=1998,
            paper="Optical Recognition of Handwritten Digits, doi 10.24432/C50P49",
            built_in=True,
        ),
        DataCard(
            name="gaussian",
            title="Gaussian pairs with a known share of common information; built in, with the truth about it",
            path="xmodal.data.gaussian.dataset:load",
            settings="xmodal.data.gaussian.dataset:GaussianSettings",
            make="xmodal.data.gaussian.dataset:make",
            modalities=("a", "b"),
            year=2023,
            paper="Xue et al., The Modality Focusing Hypothesis, arXiv 2206.06487",
            built_in=True,
        ),
        DataCard(
            name="classification",
            title="scikit-learn's classes seen twice, with a known share of common columns; built in",
            path="xmodal.data.classification:load",
            settings="xmodal.data.classification:ClassificationSettings",
            make="xmodal.data.classification:make",
            modalities=("a", "b"),
            year=2024,
            paper="Chen et al., Non-target Divergence Hypothesis, arXiv 2409.02438",
            built_in=True,
        ),
        DataCard(
            name="mnist",
            title="MNIST and MNIST-M: the same digits grey and on coloured backgrounds, behind noise",
            path="xmodal.data.mnist.dataset:load",
            settings="xmodal.data.mnist.dataset:MnistSettings",
            make="xmodal.data.mnist.files:make",
            prepare="xmodal.data.mnist.files:prepare",
            check="xmodal.data.mnist.files:check",
            files="train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
            "t10k-labels-idx1-ubyte, each of them with or without .gz",
            modalities=("mnist", "mnist_m"),
            year=1998,
            paper="LeCun et al., Gradient-Based Learning Applied to Document Recognition, doi 10.1109/5.726791",
        ),
        DataCard(
            name="ravdess",
            title="emotions of 24 actors, heard and seen; from the archive's wav and mp4 files",
            path="xmodal.data.ravdess.dataset:load",
            settings="xmodal.data.ravdess.dataset:RavdessSettings",
            make="xmodal.data.ravdess.synthetic:make",
            prepare="xmodal.data.ravdess.files:prepare",
            check="xmodal.data.ravdess.check:check",
            files="aud_features/<name>.npy, vid_features/<name>.png or .jpg, and data_file/spa_dl.csv, spa_val.csv and "
            "spa_test.csv",
            modalities=("audio", "image"),
            year=2018,
            paper="Livingstone and Russo, RAVDESS, doi 10.1371/journal.pone.0196391",
        ),
        DataCard(
            name="vggsound",
            title="ten seconds of 309 kinds of events, heard and seen; from the published list and mp4 clips",
            path="xmodal.data.vggsound.dataset:load",
            settings="xmodal.data.vggsound.dataset:VggsoundSettings",
            make="xmodal.data.vggsound.synthetic:make",
            prepare="xmodal.data.vggsound.files:prepare",
            check="xmodal.data.vggsound.check:check",
            files="label.json, and train and test with video_jpg/<clip>.jpg and audio_npy/<clip>.npy or "
            "audio/<clip>.wav; or vggsound.csv and the clips that it names",
            modalities=("audio", "video"),
            year=2020,
            paper="Chen et al., VGGSound, arXiv 2004.14368",
        ),
        DataCard(
            name="semantic-kitti",
            title="what every point of a LiDAR is, and what a camera saw of it; drives from the published files",
            path="xmodal.data.semantic_kitti.dataset:load",
            settings="xmodal.data.semantic_kitti.dataset:SemanticKittiSettings",
            make="xmodal.data.semantic_kitti.synthetic:make",
            prepare="xmodal.data.semantic_kitti.crop:prepare",
            prepared_as="kitti-fov",
            check="xmodal.data.semantic_kitti.files:check",
            files="sequences/00 … 21, each with velodyne/<frame>.bin, labels/<frame>.label, image_2/<frame>.png and "
            "calib.txt",
            modalities=("lidar", "image"),
            year=2019,
            paper="Behley et al., SemanticKITTI, ICCV 2019, arXiv 1904.01416",
        ),
        DataCard(
            name="nyu",
            title="the voxels of 1,449 rooms from colours and depth; from SSCNet's files, which become arrays",
            path="xmodal.data.nyu.dataset:load",
            settings="xmodal.data.nyu.dataset:NyuSettings",
            make="xmodal.data.nyu.synthetic:make",
            prepare="xmodal.data.nyu.files:prepare",
            check="xmodal.data.nyu.check:check",
            files="NYUtrain_npz and NYUtest_npz, or NYUCADtrain_npz and NYUCADtest_npz, with one .npz for each frame",
            modalities=("depth", "rgb", "tsdf"),
            year=2012,
            paper="Silberman et al., ECCV 2012; voxels: Song et al., SSCNet, arXiv 1611.08974",
        ),
        DataCard(
            name="discom",
            title="two views of the digits with few labels, in the file format of DisCoM-KD; variants as files",
            path="xmodal.data.discom:load",
            settings="xmodal.data.discom:DiscomSettings",
            make="xmodal.data.discom:make",
            modalities=("ROWS", "FOU"),
            year=2024,
            paper="format: Ienco and Dantas, DisCoM-KD, BMVC 2024, arXiv 2408.07080",
            built_in=True,
        ),
        DataCard(
            name="mosi",
            title="MOSI and MOSEI: sentiment from words, face and voice; the published pickles, read as data",
            path="xmodal.data.mosi.dataset:load",
            settings="xmodal.data.mosi.dataset:MosiSettings",
            make="xmodal.data.mosi.files:make",
            prepare="xmodal.data.mosi.files:prepare",
            check="xmodal.data.mosi.files:check",
            files="the pickle of MOSI or MOSEI, or what `xmodal data prepare mosi` made of it",
            single=".pkl",
            modalities=("text", "vision", "audio"),
            year=2016,
            paper="Zadeh et al., MOSI, arXiv 1606.06259; MOSEI, ACL 2018",
        ),
    ],
)


def open_data(
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    task: str = "",
    train_fraction: float = 1.0,
    augment: str = "",
    seed: int = 0,
) -> Data:
    """A data set of the list, or own data.

    Args:
        name: a name of the list, or the path of a folder; the list goes first (``./digits`` is a folder).
        options: of this data set, checked by its settings class; folders take ``modalities``.
        task: kind of target; empty: what the data says.
        train_fraction: share of the training rows to keep, drawn class by class.
        augment: operations for training batches, for example ``noise:0.1,shift:1``.
        seed: of drawn splits, the train fraction and the augmentation.
    """
    from xmodal.data.options import validated
    from xmodal.data.request import DataRequest

    card, folder = _find(name)
    where = f"The data set {card.name}" if card else f"The folder {name}"
    settings = validated(
        load(card.settings if card else "xmodal.data.own.folder:FolderSettings"), options or {}, f"{where} (options)"
    )
    root = files_of(card, settings) if card else folder
    loader = card.load() if card else load("xmodal.data.own.folder:load_folder")
    request = DataRequest(task=task, train_fraction=train_fraction, augment=augment, seed=seed)
    data: Data = loader(root, settings, request)
    data.source = {
        "data": folder or name,
        "options": settings.model_dump(mode="json") | ({"root": root} if card and root else {}),
        **asdict(request),
    }
    return data


def reopen(source: Mapping[str, Any]) -> Data:
    """The data that `open_data` described in ``data.source``."""
    if "data" not in source:
        raise InputError("This data was given as arrays in memory, so it can't be opened again. Give it once more.")
    if not isinstance(source["data"], str):
        raise InputError(
            f"The run says that its data is {source['data']!r}: a name or a folder was expected. Name the data."
        )
    return open_data(source["data"], **{key: value for key, value in source.items() if key != "data"})


def files_of(card: DataCard, settings: Any) -> str | None:
    """The absolute path of the folder or file that a data set is read from; None if it needs none."""
    if not card.files:
        return None
    make = f" A small copy to try things on: xmodal data make {card.name} DIR." if card.make else ""
    if settings.root is None:
        if getattr(settings, "stand_in", False):
            return None
        raise InputError(
            f"The data set {card.name} is read from files, and no folder was named. Give --{card.name}.root DIR (in "
            f"Python the option root), a folder with {card.files}.{make}"
        )
    if not settings.root.is_dir() and not (card.single and settings.root.is_file()):
        nothing = f"no folder{' and no file' * bool(card.single)}"
        raise InputError(f"{settings.root} is {nothing}. {card.name} expects one with {card.files}.{make}")
    return str(settings.root.absolute())


def _find(name: str) -> tuple[DataCard | None, str | None]:
    """The card of this name, or the absolute path of this folder."""
    if name in DATA:
        return DATA[name], None
    if Path(name).exists() or len(Path(name).parts) > 1:
        return None, str(Path(name).absolute())
    try:
        return DATA[name], None
    except InputError as error:
        raise InputError(f"{error} Or give the path of a folder.") from None
