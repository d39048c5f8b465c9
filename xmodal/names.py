"""Words that all parts share: of splits, of tasks, of inputs. No torch here: help texts read them, too."""

SPLITS = ("train", "valid", "test")
TASKS = ("multiclass", "binary", "multilabel", "regression")


def owner(name: str) -> str:
    """The modality that an input is, or goes with.

    Example:
        >>> owner("audio"), owner("audio.lengths")
        ('audio', 'audio')
    """
    return name.partition(".")[0]
