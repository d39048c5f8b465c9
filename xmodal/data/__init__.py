"""The list of data sets, and `open_data`, which opens one of them by its name or your own data by its folder.

Importing this package imports nothing heavy: a card holds import paths, which are followed when a data set is opened.
"""

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
            title="eight views of 1,797 handwritten digits; built in, trains in seconds on a CPU",
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
            title="synthetic Gaussian pairs of which the share of common information is known; built in",
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
            title="synthetic classes in two modalities with a known share of common features; built in",
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
            title="MNIST and MNIST-M: the same digits, grey and on coloured backgrounds, with added noise",
            path="xmodal.data.mnist.dataset:load",
            settings="xmodal.data.mnist.dataset:MnistSettings",
            make="xmodal.data.mnist.files:make",
            prepare="xmodal.data.mnist.files:prepare",
            check="xmodal.data.mnist.files:check",
            files="train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
            "t10k-labels-idx1-ubyte, each of them with or without .gz; or MNIST/mnist_data.pkl and "
            "MNIST_M/mnist_m_data.pkl",
            modalities=("mnist", "mnist_m"),
            year=1998,
            paper="LeCun et al., Gradient-Based Learning Applied to Document Recognition, doi 10.1109/5.726791",
        ),
        DataCard(
            name="ravdess",
            title="emotions of 24 actors in audio and video frames; from the archive's wav and mp4 files",
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
            title="309 kinds of events in ten seconds of audio and video; from the published list and mp4 clips",
            path="xmodal.data.vggsound.dataset:load",
            settings="xmodal.data.vggsound.dataset:VggsoundSettings",
            make="xmodal.data.vggsound.synthetic:make",
            prepare="xmodal.data.vggsound.files:prepare",
            check="xmodal.data.vggsound.check:check",
            files="label.json or label_tiny.json, and train and test with video_jpg/<clip>.jpg and "
            "audio_npy/<clip>.npy or audio/<clip>.wav; or vggsound.csv and the clips that it names",
            modalities=("audio", "video"),
            year=2020,
            paper="Chen et al., VGGSound, arXiv 2004.14368",
        ),
        DataCard(
            name="semantic-kitti",
            title="a class for every LiDAR point, with the camera image of the scan; from the published files",
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
            title="semantic scene completion of 1,449 rooms from RGB and depth; from SSCNet's files",
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
            title="two views of the digits with few labels, in the file format of DisCoM-KD; built in",
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
            title="MOSI and MOSEI: sentiment from words, face and voice; from the published pickles, read safely",
            path="xmodal.data.mosi.dataset:load",
            settings="xmodal.data.mosi.dataset:MosiSettings",
            make="xmodal.data.mosi.files:make",
            prepare="xmodal.data.mosi.files:prepare",
            check="xmodal.data.mosi.files:check",
            files="the pickle of MOSI or MOSEI, or the files that `xmodal data prepare mosi` wrote",
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
    labelled: str | int | float = "",
    labelled_groups: int = 0,
    valid_labels: str | int = "",
    augment: str = "",
    seed: int = 0,
    folds: int = 0,
) -> Data:
    """Open a data set of the list, or a folder with your own data.

    Args:
        name: a name of the list, or the path of a folder. Where both exist the list wins: ``digits`` is the data set,
            ``./digits`` the folder.
        options: fields of the data set's settings class, or of `FolderSettings` for a folder.
        task: see `DataRequest`, as the arguments below.
        train_fraction: share of the training rows to keep.
        labelled: labels to keep in training, as a count (30), a share (0.1) or a .npy file with rows; the other
            training rows stay, without their labels.
        labelled_groups: whole groups (people, drives) to keep the labels of instead.
        valid_labels: labels to keep in validation, a count or ``all``; by default as many as in training.
        augment: operations for training batches.
        seed: of everything that is drawn; with folds, the number of the fold that is the test split.
        folds: divide the labelled rows of all splits into so many folds, by group where there are groups; 0: keep the
            splits.
    """
    from xmodal.data.options import validated
    from xmodal.data.request import DataRequest

    card, folder = _find(name)
    where = f"The data set {card.name}" if card else f"The folder {name}"
    settings = validated(
        load(card.settings if card else "xmodal.data.own.folder:FolderSettings"), options or {}, f"{where} (options)"
    )
    # absolute, so that a run finds its data again from another working directory
    root = files_of(card, settings) if card else folder
    loader = card.load() if card else load("xmodal.data.own.folder:load_folder")
    request = DataRequest(
        task=task,
        train_fraction=train_fraction,
        labelled=str(labelled),
        labelled_groups=labelled_groups,
        valid_labels=str(valid_labels),
        augment=augment,
        **DataRequest.drawn(seed, folds),
    )
    data: Data = loader(root, settings, request)
    if data.folds != folds:
        raise InputError(f"{where} has splits of its own, which can't be divided into folds. Use seeds instead.")
    if request.labelled or request.labelled_groups or request.valid_labels:
        from xmodal.data.labels import requested

        data = requested(data, request)
    data.source = {
        "data": folder or name,
        "options": settings.model_dump(mode="json") | ({"root": root} if card and root else {}),
        **asdict(request),
    }
    # as the arguments of this function name it
    del data.source["fold"]
    data.source |= {"seed": seed, "folds": folds}
    return data


def reopen(source: Mapping[str, Any]) -> Data:
    """Open the data that ``data.source`` describes: the same rows, in the same splits.

    Args:
        source: what `open_data` stored in ``data.source``, for example read back from the folder of a run.
    """
    if "data" not in source:
        raise InputError("This data was given as arrays in memory, so it can't be opened again. Pass it once more.")
    # the source may come from a file that was edited
    if not isinstance(source["data"], str):
        raise InputError(
            f"The run says that its data is {source['data']!r}: a name or a folder was expected. Name the data."
        )
    return open_data(source["data"], **{key: value for key, value in source.items() if key != "data"})


def files_of(card: DataCard, settings: Any) -> str | None:
    """The absolute path of the folder or file that a data set is read from; None if it needs no files."""
    if not card.files:
        return None
    make = f" A small synthetic copy to try things on: xmodal data make {card.name} DIR." if card.make else ""
    if settings.root is None:
        # data that needs no files, or whose files other options name
        if getattr(settings, "stand_in", False) or getattr(settings, "rootless", False):
            return None
        raise InputError(
            f"The data set {card.name} is read from files, and no folder was named. Give --{card.name}.root DIR (in "
            f"Python the option root), a folder with {card.files}.{make}"
        )
    if not settings.root.is_dir() and not (card.single and settings.root.is_file()):
        expected = f"no folder{' and no file' * bool(card.single)}"
        raise InputError(f"{settings.root} is {expected}. {card.name} expects one with {card.files}.{make}")
    return str(settings.root.absolute())


def _find(name: str) -> tuple[DataCard | None, str | None]:
    """The card of this name, or the absolute path of this folder."""
    if name in DATA:
        return DATA[name], None
    # a name with a slash can only be meant as a path: its error should speak of a folder and not of the list
    if Path(name).exists() or len(Path(name).parts) > 1:
        return None, str(Path(name).absolute())
    try:
        return DATA[name], None
    except InputError as error:
        raise InputError(f"{error} Or give the path of a folder.") from None
