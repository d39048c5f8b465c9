"""The command line `xmodal`: looks up the command, runs it, and turns errors into a message and an exit status.

0 done · 1 a check or comparison failed · 2 the input is wrong · 3 a loss is not finite · 4 a bug in xmodal ·
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
    "list": ("xmodal.cli.inspect:list_cards", "methods, losses, data sets and recipes, or the facts of one of them"),
    "run": ("xmodal.cli.experiments:run", "one experiment, from data to report"),
    "reproduce": (
        "xmodal.cli.experiments:reproduce",
        "recipes at their published settings, and how far they are from the paper",
    ),
    "distill": (
        "xmodal.cli.experiments:distill",
        "teacher, no-KD control, distilled student and report, for your data",
    ),
    "compare": ("xmodal.cli.experiments:compare", "several methods over several seeds, with controls"),
    "evaluate": ("xmodal.cli.results:evaluate", "metrics of a run's students on new data or the test split"),
    "report": ("xmodal.cli.results:report", "one self-contained page, drawn again from run folders"),
    "export": ("xmodal.cli.deployment:export", "the student without the training: safetensors, torch or onnx"),
    "predict": ("xmodal.cli.deployment:predict", "predictions of an exported student on new samples"),
    "teacher-table": (
        "xmodal.cli.teacher_table:teacher_table",
        "the outputs of a teacher for all rows, as a table for --teacher-from",
    ),
    "embed": ("xmodal.cli.embedding:embed", "embeddings of samples, split into the parts of a disentangled student"),
    "data": ("xmodal.cli.data:data", "write, prepare or check a data folder"),
    "doctor": ("xmodal.cli.doctor:doctor", "versions, devices, a test with two processes, missing packages and data"),
}
STATUSES = (
    "exit status: 0 done, 1 a check or comparison failed, 2 the input is wrong, 3 a loss is not finite,\n"
    "4 a bug in xmodal (a report is written), 130/143 interrupted (the state is saved),\n"
    "137 one of several processes was killed (checkpoints written before that are kept)"
)
Command = Callable[[Sequence[str]], Answer]


def main(words: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    # before slow imports: a Ctrl-C that arrives earlier ends Python with a traceback
    interrupt.install()
    # torch reads this when it is imported; otherwise its C++ part prints warnings in every process
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    words = list(sys.argv[1:] if words is None else words)
    status = answer(words)
    interrupt.leave()
    if spawn.has_peers():
        # The work is done and the message is written. Threads of torch that wait for a rank which has just ended would
        # abort this process while the interpreter is taken down, and the abort would replace the status.
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def answer(words: Sequence[str]) -> int:
    """Run a command line and return its exit status."""
    try:
        return _answer(words)
    except BrokenPipeError:
        # the reader of our output (such as `head`) has closed it; Python would flush it at exit and print an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _answer(words: Sequence[str]) -> int:
    failure: BaseException | None = None
    try:
        try:
            return _run(words)
        except (Exception, Interrupted) as error:
            failure = error
            interrupt.leave()
    except (Exception, Interrupted) as error:
        # a signal that came just before `leave`: what happened first is the reason
        failure = failure or error
        interrupt.leave()
    return _failed(words, failure)


def _run(words: Sequence[str]) -> int:
    spawn.follow()
    # standard output holds the result and nothing else, so that it can be piped; libraries print there, too
    with contextlib.redirect_stdout(sys.stderr):
        result = _command(words)(words[1:])
    if _is_first():
        result.show()
    return result.status


def _failed(words: Sequence[str], error: BaseException) -> int:
    """Print why a command ended, and return its exit status."""
    from xmodal.cli.parser import Help

    if isinstance(error, Help):
        Answer({"help": str(error)}, "--json" in words, [str(error)]).show()
        return 0
    if isinstance(error, CheckFailed):
        return _complain(words, [str(error)], 1)
    if isinstance(error, InputError):
        return _complain(words, error.problems, 2)
    if isinstance(error, NonFinite):
        return _complain(words, [str(error)], 3)
    if isinstance(error, ProcessDied):
        return _complain(words, [_died(error)], error.exit_status)
    if isinstance(error, BrokenPipeError):
        raise error
    # a rank whose peer died fails in its next collective, or gets a signal from the launcher: the death is the cause
    died = error.__cause__ if isinstance(error, Interrupted) else spawn.gone()
    if isinstance(died, ProcessDied):
        return _complain(words, [_died(died)], died.exit_status, prints=spawn.speaks())
    if isinstance(error, Interrupted):
        return _complain(words, [_interrupted(error)], error.exit_status)
    if isinstance(error, OSError):
        return _complain(words, *_system_error(words, error))
    return _complain(words, [_bug(words, error)], 4)


def _command(words: Sequence[str]) -> Command:
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
        f"{listed}\n\nxmodal COMMAND --help lists the flags; --json prints any result as one JSON document.\n\n"
        f"{STATUSES}"
    )
    return Answer({"help": text}, "--json" in words, [text])


def _is_first() -> bool:
    """Whether this process prints the result: rank 0 under our own parent, torchrun or SLURM."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", "0")))) == 0


def _complain(words: Sequence[str], problems: Sequence[str], status: int, *, prints: bool | None = None) -> int:
    prints = _is_first() if prints is None else prints
    # wrong input is the same in all ranks, so one of them prints it; a bug may hit any rank. Under our own parent all
    # of them print: it keeps what other ranks print, and shows that of the rank that failed first
    for problem in problems if prints or status == 4 or (spawn.hears() and not _is_first()) else ():
        print(f"xmodal: {problem}", file=sys.stderr)
    if "--json" in words and prints:
        print_json({"status": status, "errors": list(problems)})
    return status


def _interrupted(error: Interrupted) -> str:
    if error.saved is None:
        return "Interrupted before there was anything to save."
    from xmodal.engine.run.folder import resume_command

    return f"Interrupted; the state is saved in {error.saved}. Continue with: {resume_command(Path(error.saved))}"


def _died(error: ProcessDied) -> str:
    from xmodal.engine.run.folder import resume_command, what_is_saved

    if error.saved is None:
        return f"{error} {what_is_saved(None)}"
    launcher = "" if spawn.leads(2) else "under the same launcher "
    command = resume_command(Path(error.saved))
    return f"{error} {what_is_saved(error.saved)} Continue {launcher}with: {command}"


def _system_error(words: Sequence[str], error: OSError) -> tuple[list[str], int]:
    """Message and exit status of an error that the user can repair: an unusable path or a full disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return [f"The disk is full ({error.filename or 'while writing'}). Make room and run the command again."], 2
    if error.filename is None:
        return [_bug(words, error)], 4
    return [f"{error.filename}: {error.strerror}. Check the path and its permissions."], 2


def _bug(words: Sequence[str], error: BaseException) -> str:
    """Write the report of a bug and return the message that names it."""
    report = "".join(traceback.format_exception(error))
    text = f"xmodal {__version__}\n{' '.join(words)}\n\n{report}"
    path = Path(f"xmodal-error-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.txt")
    last = report.strip().splitlines()[-1]
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:
        return f"This is a bug in xmodal, and its report could not be written to this folder:\n{text}"
    return f"This is a bug in xmodal, not in your input ({last}). The report is in {path}; please send it to us."


if __name__ == "__main__":
    main()
