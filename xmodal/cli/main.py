"""`xmodal`: finds the command, calls it, turns what went wrong into a sentence and an exit status.

0 done · 1 a check or comparison failed · 2 the input is wrong · 3 the numbers failed · 4 an error of ours ·
130/143 interrupted, state saved · 137 one of several processes was killed (128 + the signal)
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from xmodal.cards import load
from xmodal.cli.output import Answer, CheckFailed, print_json
from xmodal.engine.processes import interrupt, spawn
from xmodal.errors import InputError, Interrupted, NonFinite, ProcessDied, did_you_mean
from xmodal.version import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("xmodal.cli.inspect:list_cards", "what there is: methods, losses, data, recipes"),
    "run": ("xmodal.cli.experiments:run", "one experiment, start to report"),
    "reproduce": ("xmodal.cli.experiments:reproduce", "recipes at their published settings, ours beside theirs"),
    "distill": ("xmodal.cli.experiments:distill", "own data: teacher, no-KD control, student, report"),
    "compare": ("xmodal.cli.experiments:compare", "methods side by side over seeds, with controls"),
    "evaluate": ("xmodal.cli.results:evaluate", "metrics of a run's students on new data or the test split"),
    "report": ("xmodal.cli.results:report", "one self-contained page, redrawn from run folders"),
    "export": ("xmodal.cli.deployment:export", "the student alone: safetensors, torch or onnx"),
    "predict": ("xmodal.cli.deployment:predict", "an exported student on new samples"),
    "embed": ("xmodal.cli.embedding:embed", "the parts of a disentangled student's embeddings of samples"),
    "data": ("xmodal.cli.data:data", "make, prepare or check a data folder"),
    "doctor": ("xmodal.cli.inspect:doctor", "versions, devices, two processes, what is missing"),
}
STATUSES = (
    "exit status: 0 done, 1 a check or comparison failed, 2 the input is wrong, 3 the numbers failed,\n"
    "4 an error of xmodal (a report is written), 130/143 interrupted (the state is saved),\n"
    "137 one of several processes was killed (what was saved by then is there)"
)
Command = Callable[[Sequence[str]], Answer]


def main(words: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    interrupt.install()  # before anything slow is imported: an earlier signal would end us without a word
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is imported; its C++ side warns per process
    words = list(sys.argv[1:] if words is None else words)
    sys.exit(answer(words))


def answer(words: Sequence[str]) -> int:
    """Run a command line and return its exit status."""
    try:
        return _answer(words)
    except BrokenPipeError:
        # the reader of our output left; keep Python from complaining about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _answer(words: Sequence[str]) -> int:
    from xmodal.cli.parser import Help

    try:
        spawn.follow()
        with contextlib.redirect_stdout(sys.stderr):  # what libraries print is no part of the result
            found = _find(words)(words[1:])
        if _is_first():
            found.show()
        return found.status
    except Help as help_text:
        Answer({"help": str(help_text)}, "--json" in words, [str(help_text)]).show()
        return 0
    except CheckFailed as error:
        return _complain(words, [str(error)], 1)
    except InputError as error:
        return _complain(words, error.problems, 2)
    except NonFinite as error:
        return _complain(words, [str(error)], 3)
    except Interrupted as error:
        return _complain(words, [_interrupted(error)], error.exit_status)
    except ProcessDied as error:
        return _complain(words, [_died(error)], error.exit_status)
    except BrokenPipeError:
        raise
    except Exception as error:
        if spawn.has_peers():
            interrupt.ignore()  # we end anyway, and a launcher may send one
        if died := spawn.gone():  # that is why we failed
            return _complain(words, [_died(died)], died.exit_status, aloud=spawn.speaks())
        if isinstance(error, OSError):
            return _complain(words, *_system(words, error))
        return _complain(words, [_ours(words)], 4)


def _find(words: Sequence[str]) -> Command:
    if not words or words[0] in ("-h", "--help", "help"):
        return _help
    if words[0] in ("--version", "version"):
        return _version
    if words[0] not in COMMANDS:
        raise InputError(f"There is no command '{words[0]}'. {did_you_mean(words[0], COMMANDS)}")
    command: Command = load(COMMANDS[words[0]][0])
    return command


def _version(words: Sequence[str]) -> Answer:
    return Answer({"version": __version__}, "--json" in words, [f"xmodal {__version__}"])


def _help(words: Sequence[str]) -> Answer:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    text = (
        "usage: xmodal COMMAND [...]\n\n"
        "Cross-modal knowledge distillation: train with several modalities, deploy with fewer.\n\n"
        f"{listed}\n\nxmodal COMMAND --help tells more; --json prints any result as one JSON document; --version.\n\n"
        f"{STATUSES}"
    )
    return Answer({"help": text}, "--json" in words, [text])


def _is_first() -> bool:
    """Whether this process is the one that prints."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", "0")))) == 0


def _complain(words: Sequence[str], problems: Sequence[str], status: int, *, aloud: bool | None = None) -> int:
    aloud = _is_first() if aloud is None else aloud
    for problem in problems if aloud or status == 4 or (spawn.hears() and not _is_first()) else ():
        print(f"xmodal: {problem}", file=sys.stderr)
    if "--json" in words and aloud:
        print_json({"status": status, "errors": list(problems)})
    return status


def _interrupted(error: Interrupted) -> str:
    if error.saved is None:
        return "Interrupted before anything had to be saved."
    from xmodal.engine.run.folder import resume_command

    return f"Interrupted; the state is saved in {error.saved}. Go on with: {resume_command(Path(error.saved))}"


def _died(error: ProcessDied) -> str:
    from xmodal.engine.run.folder import resume_command, what_is_saved

    if error.saved is None:
        return f"{error} {what_is_saved(None)}"
    launcher = "" if spawn.leads(2) else "under the same launcher "
    command = resume_command(Path(error.saved))
    return f"{error} {what_is_saved(error.saved)} Go on {launcher}with: {command}"


def _system(words: Sequence[str], error: OSError) -> tuple[list[str], int]:
    """A path that can't be used and a full disk are the user's to repair."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return [f"The disk is full ({error.filename or 'while writing'}). Make room and run the command again."], 2
    if error.filename is None:
        return [_ours(words)], 4
    return [f"{error.filename}: {error.strerror}. Check the path and its permissions."], 2


def _ours(words: Sequence[str]) -> str:
    """Write the report of a bug and say where it is."""
    text = f"xmodal {__version__}\n{' '.join(words)}\n\n{traceback.format_exc()}"
    path = Path(f"xmodal-error-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.txt")
    last = traceback.format_exc().strip().splitlines()[-1]
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:
        return f"This is an error of ours, and its report could not be written here:\n{text}"
    return f"This is an error of ours, not of your input ({last}). The report is in {path}; please send it to us."


if __name__ == "__main__":
    main()
