"""A study on what a Python call was given; `xmodal.study.opening.Study` is the same for data that is opened by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmodal.api.given import Given
from xmodal.collectives import gather_json
from xmodal.engine.callbacks import tell_end
from xmodal.engine.progress import Progress
from xmodal.errors import InputError
from xmodal.files import plain, read_json
from xmodal.study.opening import Study, StudySettings

if TYPE_CHECKING:
    from xmodal.data.base import Data
    from xmodal.devices import Devices
    from xmodal.study.plan import Plan

# key of settings.json → what it describes, for the sentence about a folder of another call
RECORDED = {"data": "data", "networks": "networks of your own", "weights": "weights of rows", "metrics": "metrics"}


class Source:
    """Opens the data of each seed, as `xmodal.study.plan.open_seed` does for data with a name.

    Args:
        given: the data, and what belongs to it.

    Attributes:
        first: the data of the first seed; None before it is opened.
    """

    def __init__(self, given: Given) -> None:
        self.given = given
        self.first: Data | None = None
        self._plan: Plan | None = None

    def __call__(self, plan: Plan, seed: int) -> Data:
        """The given data; where no split was given, the seed draws it."""
        data = self.given.open(plan, seed)
        self._plan, self.first = plan, self.first or data
        return data

    def __reduce__(self) -> tuple[type[Source], tuple[Given]]:
        # to another process: callbacks stay in this one, and the data is opened there
        return Source, (replace(self.given, callbacks=()),)

    def again(self, seed: int) -> Data:
        """The data of a seed, as it was when it was trained."""
        assert self._plan is not None, "the data was opened before"
        return self.given.open(self._plan, seed)

    def facts(self) -> dict[str, Any]:
        """What a run folder records of the call. Data of later seeds differs in its split alone."""
        assert self.first is not None, "the data is opened before the run folder"
        return {"given": plain(self.given.described(self.first))}


class GivenStudy(Study):
    """A study whose data, networks and callbacks are Python objects.

    Args:
        settings: of the recipe.
        recipe: name of its card.
        fabric: started devices.
        progress: shows the progress.
        source: the data and the other objects.
        resume: what the user said about continuing; None: a run of the same call is continued.
    """

    def __init__(
        self,
        settings: StudySettings,
        recipe: str,
        fabric: Devices,
        progress: Progress,
        *,
        source: Source,
        resume: bool | None = None,
    ) -> None:
        super().__init__(settings, recipe, fabric, progress)
        self.source, self.resume = source, resume
        self.modules = source.given.modules
        self.callbacks = source.given.callbacks if fabric.global_rank == 0 else ()
        # a result answers with the networks themselves, wherever they were trained
        self.keeps_networks = True

    def start(
        self,
        *,
        fits: int,
        name: str = "",
        resume: bool | None = None,
        free: Sequence[str] = (),
        facts: Mapping[str, Any] | None = None,
        write: bool = True,
    ) -> None:
        """Open the run folder, if there is to be one; a folder with a run of the same call is continued."""
        out, known = self.settings.out, dict(facts or {})
        if out is not None:
            known |= self.source.facts()
            resume = self._continues(out, known["given"])
        super().start(fits=fits, name=name, resume=resume, free=free, facts=known, write=out is not None)

    def _continues(self, out: Path, now: Mapping[str, Any]) -> bool:
        """Whether the folder has a run to continue; an error if the run in it is another one."""
        used = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
        if used and not (out / "settings.json").is_file():
            raise InputError(f"The folder {out} is not empty, and what it holds is no run. Give another out=.")
        if used and self.resume is False:
            raise InputError(f"The folder {out} holds a run, and training says not to resume. Give another out=.")
        if used:
            saved = read_json(out / "settings.json").get("given", {})
            other = [RECORDED[key] for key in RECORDED if saved.get(key) != now.get(key)]
            if other:
                raise InputError(
                    f"The run in {out} was made with other {' and '.join(other)}. Give the same to continue it, or "
                    "another out= for a new run."
                )
        # agreed on, so that no process looks into the folder after the first one has begun to write
        together: list[bool] = gather_json(used, self.fabric.device)
        return together[0]

    def data_of(self, seed: int) -> Data:
        """The data of a seed that is trained."""
        from xmodal.study.bench import Bench

        trained = self.trained[seed]
        return trained.data if isinstance(trained, Bench) else self.source.again(seed)

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write the result, and tell the callbacks."""
        finished = super().finish(result)
        tell_end(self.callbacks, finished)
        return finished


def run_on(
    recipe: Callable[..., dict[str, Any]], settings: StudySettings, given: Given, *, resume: bool | None, verbose: bool
) -> tuple[dict[str, Any], GivenStudy]:
    """Run a recipe on what a Python call was given.

    Args:
        recipe: its function ``run``.
        settings: of the recipe.
        given: data, networks and callbacks.
        resume: see `GivenStudy`.
        verbose: whether to print the progress.

    Returns:
        The content of `result.json`, and the study with all networks.
    """
    studies: list[GivenStudy] = []
    source = Source(given)

    def build(settings: StudySettings, name: str, fabric: Devices, progress: Progress) -> GivenStudy:
        studies.append(GivenStudy(settings, name, fabric, progress, source=source, resume=resume))
        return studies[-1]

    result = recipe(settings, progress=Progress(quiet=not verbose), opened=source, build=build)
    return result, studies[0]
