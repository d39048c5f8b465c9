"""A study without a run folder, for tests that call the parts of a recipe."""

from xmodal.engine.processes.launch import launch
from xmodal.engine.progress import Progress
from xmodal.study.opening import Study


def quiet_study(settings, recipe="compare"):
    """What `open_study` gives, silent; nothing is written before `start`."""
    return Study(settings, recipe, launch(settings.machine(), precision=settings.precision), Progress(quiet=True))
