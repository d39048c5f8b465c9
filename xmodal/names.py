"""Names of splits and tasks, and how the names of inputs are built. No torch here: help texts import this module."""

SPLITS = ("train", "valid", "test")
TASKS = ("multiclass", "binary", "multilabel", "regression")
# class number of rows without a label, within the library and by default in files
UNLABELLED = -1


def owner(name: str) -> str:
    """The modality of an input: ``audio`` for ``audio`` itself and for ``audio.lengths``.

    Example:
        >>> owner("audio"), owner("audio.lengths")
        ('audio', 'audio')
    """
    return name.partition(".")[0]
