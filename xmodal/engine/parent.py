"""A small parent for runs of several processes: it starts them, passes signals on, and speaks when one dies.

The process that the user started does no work of its own: it starts the same command once per device, as ranks 0, 1, …
of one run, and waits. Rank 0 prints as if it had been started alone; the others are silent, and what they say is shown
if they fail. Whichever rank is killed, the rest is ended (it would wait in a collective for ever), and `ProcessDied`
tells who it was and which folder holds what was saved. A rank whose parent is killed saves and leaves, as after
SIGTERM.

Under `torchrun`, SLURM and their like the launcher is the parent, and nothing here starts anything; a rank that fails
because another one is gone finds out who (`gone`). No torch here: the parent stays small, and help texts come at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from xmodal.errors import InputError, ProcessDied

LINE = "XMODAL_PARENT"  # number of the socket to the parent, in the environment of a rank
LAUNCHERS = ("LOCAL_RANK", "TORCHELASTIC_RUN_ID", "JSM_NAMESPACE_LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
LEFT_ALONE = 128 + int(signal.SIGKILL)  # exit status of a rank that could not go on without another
GRACE = 5.0  # seconds for the others to end by themselves when one has failed, or when rank 0 is done
LOOK = 0.05  # seconds between two looks at the ranks
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def leads(processes: int) -> bool:
    """Whether this process is to start the others: there are several, and no launcher has started them."""
    return processes > 1 and not any(name in os.environ for name in LAUNCHERS) and not under_slurm()


def under_slurm() -> bool:
    """Whether ``srun`` started this process as one of its tasks; a shell on a node of a job is none."""
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def same_command() -> list[str]:
    """The command line of this process, to be started again."""
    place = sys.orig_argv[1] if len(sys.orig_argv) > 1 else "-"
    if place == "-" or hasattr(sys, "ps1") or "ipykernel" in sys.modules:
        raise InputError(
            "Several devices start the command again, once per device, and what is typed into Python or a notebook "
            "can't be started again. Put it into a file, or use one device."
        )
    return [sys.executable, *sys.orig_argv[1:]]


def lead(command: Sequence[str], processes: int) -> int:
    """Run a command as several ranks and return the exit status.

    Raises:
        ProcessDied: a rank was killed, or failed and rank 0 could not say why.
    """
    with _Ranks(command, processes) as ranks, _passed_on(ranks):
        ranks.wait()
        return ranks.status()


class _Ranks:
    """The processes of a run, as their parent sees them; whatever is left of them ends with the block."""

    def __init__(self, command: Sequence[str], processes: int) -> None:
        self.command, self.count = list(command), processes
        self.processes: list[subprocess.Popen[bytes]] = []
        self.said: list[IO[bytes] | None] = []
        self.first: int | None = None  # rank that was the first to fail
        self.received: list[int] = []  # signals that were passed on
        self.ended: set[int] = set()  # ranks that we ended
        self.told = b""

    def __enter__(self) -> _Ranks:
        self.line, theirs = socket.socketpair()
        self.line.setblocking(False)
        common = {**_meeting(), "WORLD_SIZE": str(self.count), "NODE_RANK": "0", LINE: str(theirs.fileno())}
        try:
            with theirs, _held_back():  # signals wait until the ranks can answer them
                for rank in range(self.count):
                    self._start(rank, {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, theirs)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, rank: int, environment: Mapping[str, str], line: socket.socket) -> None:
        said = tempfile.TemporaryFile() if rank else None
        self.said.append(said)
        self.processes.append(
            subprocess.Popen(
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL if rank else None,
                stdout=subprocess.DEVNULL if rank else None,
                stderr=said,
                pass_fds=[line.fileno()],
                start_new_session=True,  # signals of the terminal come from us, once; and its workers end with a rank
            )
        )

    def __exit__(self, *error: object) -> None:
        self.end()
        for said in self.said:
            if said is not None:
                said.close()
        self.line.close()

    def end(self) -> None:
        """Kill what is left, and the workers of what is not."""
        for rank, process in enumerate(self.processes):
            if process.poll() is None:
                self.ended.add(rank)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait(self) -> None:
        """Until all have ended, by themselves or by us."""
        deadline = float("inf")
        while None in (codes := [process.poll() for process in self.processes]):
            self._listen()
            failed = {rank: code for rank, code in enumerate(codes) if code}
            killed = [rank for rank, code in failed.items() if code < 0 and -code not in self.received]
            if self.first is None and failed:
                self.first = next(iter(killed or _reasons(failed)))
            if killed:
                break
            if failed or codes[0] == 0 or len(self.received) > 1:
                deadline = min(deadline, time.monotonic() + GRACE)
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK)
        self._listen()
        self.end()

    def _listen(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while heard := self.line.recv(4096):
                self.told += heard

    def send(self, number: int) -> None:
        """Pass a signal on."""
        self.received.append(number)
        for process in self.processes:
            process.send_signal(number)

    def status(self) -> int:
        """Exit status of the run when all have ended."""
        codes = [process.returncode for process in self.processes]
        if self.first is None:  # the last two ended at once
            failed = {rank: code for rank, code in enumerate(codes) if code and rank not in self.ended}
            self.first = next(iter(_reasons(failed)), None)
        if self.first is None or codes[0] == 0:
            return 0
        if codes[0] > 0 and (self.first == 0 or codes[0] != LEFT_ALONE):
            return int(codes[0])  # it has said why
        code = codes[self.first]
        status = 128 - code if code < 0 else code
        if code != -signal.SIGKILL:  # of that it has no idea; its loading processes may complain of it
            self._show(self.first)
        raise ProcessDied(self._sentence(self.first), exit_status=status, saved=self._folder())

    def _sentence(self, rank: int) -> str:
        code = self.processes[rank].returncode
        if code < 0:
            name = signal.Signals(-code).name
            how = f"was killed by signal {-code} ({name})"
            if -code == signal.SIGKILL:
                how += ", which is what the system does when memory runs out"
        else:
            how = f"ended with exit status {code}"
        rest = "the other was ended" if self.count == 2 else "the others were ended"
        return f"Of the {self.count} processes of this run, rank {rank} (pid {self.processes[rank].pid}) {how}; {rest}."

    def _show(self, rank: int) -> None:
        """What a silent rank has said before it failed."""
        said = self.said[rank]
        if said is not None:
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))
            sys.stderr.flush()

    def _folder(self) -> str | None:
        lines = self.told.decode(errors="replace").splitlines()
        return lines[0] if lines else None


def _reasons(failed: Mapping[int, int]) -> list[int]:
    """Of ranks that have failed at once, those that did not merely miss another one; all of them if there are none."""
    return [rank for rank, code in failed.items() if code != LEFT_ALONE] or list(failed)


def _meeting() -> dict[str, str]:
    """Where the ranks meet: as the environment says, or a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return {name: os.environ.get(name, usual) for name, usual in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port))}


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Signals that arrive within the block wait for its end; processes started in it go on waiting until `follow`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def _passed_on(ranks: _Ranks) -> Iterator[None]:
    """Within this block Ctrl-C and SIGTERM are for the ranks, and the parent goes on waiting."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        ranks.send(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Place:
    """Where this process stands in a run of several: its line to the parent, its folder, the other ranks."""

    def __init__(self) -> None:
        self.line: socket.socket | None = None
        self.folder: str | None = None
        self.peers: list[tuple[str, int]] = []


_place = _Place()


def follow() -> None:
    """In a rank: answer signals from now on, and leave when the parent is gone. Does nothing in other processes."""
    number = os.environ.pop(LINE, None)  # what a rank starts is no rank
    if number is None:
        return
    _place.line = socket.socket(fileno=int(number))
    threading.Thread(target=_leave_with_parent, args=(_place.line,), daemon=True, name="parent").start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # one that waited is answered here


def _leave_with_parent(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while line.recv(1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(6 * GRACE)
    os.kill(os.getpid(), signal.SIGKILL)  # nobody is left who could


def tell(folder: Path) -> None:
    """The folder of the whole command, for the sentence that is said when a process dies; the first one counts."""
    if _place.folder is not None:
        return
    _place.folder = str(folder)
    if _place.line is not None:
        with contextlib.suppress(OSError):
            _place.line.send(f"{folder}\n".encode())


def hears() -> bool:
    """Whether a parent of ours listens to what this rank says."""
    return _place.line is not None


def has_peers() -> bool:
    """Whether this process is one of several that train together."""
    return bool(_place.peers)


def remember(peers: Sequence[tuple[str, int]]) -> None:
    """Machine and process number of all ranks."""
    _place.peers = [(machine, number) for machine, number in peers]


def gone(seconds: float = 2.0) -> ProcessDied | None:
    """Of a rank that failed: whether that is because another one is gone, and which.

    The connection to a rank may break a moment before it has ended. Our own parent speaks itself, having seen it before
    us.
    """
    here, limit = socket.gethostname(), time.monotonic() + seconds
    while _place.peers:
        dead = [rank for rank, (machine, number) in enumerate(_place.peers) if machine == here and not _lives(number)]
        if dead:
            names = " and ".join(f"rank {rank} (pid {_place.peers[rank][1]})" for rank in dead)
            text = f"Of the {len(_place.peers)} processes of this run, {names} died; the rest can't go on."
            return ProcessDied(text, exit_status=LEFT_ALONE, saved=_place.folder)
        if time.monotonic() > limit:
            break
        time.sleep(LOOK)
    return None


def speaks() -> bool:
    """Whether this rank is the one to say so: the lowest that lives on its machine, where no parent of ours does."""
    if _place.line is not None:
        return False
    here = socket.gethostname()
    alive = [number for machine, number in _place.peers if machine == here and _lives(number)]
    return alive[:1] == [os.getpid()]


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # a process that has ended keeps its number until its launcher asks for its status
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # no Linux
        return True
