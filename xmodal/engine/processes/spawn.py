"""The parent of a run of several processes: it starts them, passes signals on, and reports when one dies.

The process that the user started does not train. It starts the same command once per device, as ranks 0, 1, … of one
run, and waits. Rank 0 prints as if it had been started alone. The output of the other ranks is hidden, and shown only
if they fail. If a rank is killed, the parent ends the others, which would wait in a collective indefinitely, and raises
`ProcessDied` with the rank and the folder of what was saved. If the parent is killed, its ranks save and exit, as after
SIGTERM.

Under `torchrun`, SLURM and similar launchers this module starts nothing; a rank that fails because another one has died
finds out which one (`gone`). No torch here: the parent stays small, and help texts stay fast.
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

LINE = "XMODAL_PARENT"  # environment variable of a rank: number of its socket to the parent
LAUNCHERS = ("LOCAL_RANK", "TORCHELASTIC_RUN_ID", "JSM_NAMESPACE_LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
LEFT_ALONE = 128 + int(signal.SIGKILL)  # exit status of a rank that can't continue because another one died
GRACE = 5.0  # seconds that the other ranks have to end by themselves when one has failed, or when rank 0 is done
LOOK = 0.05  # seconds between two checks of the ranks
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def leads(processes: int) -> bool:
    """Whether this process must start the ranks: there are several, and no launcher has started them."""
    return processes > 1 and not any(name in os.environ for name in LAUNCHERS) and not under_slurm()


def under_slurm() -> bool:
    """Whether ``srun`` started this process as a task; a shell on a node of a job is not a task."""
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def same_command() -> list[str]:
    """The command line that starts this process again."""
    # `python`, `python -` and a notebook have nothing that could be run again; `python -c` has it in its arguments
    source = sys.orig_argv[1] if len(sys.orig_argv) > 1 else "-"
    if source == "-" or hasattr(sys, "ps1") or "ipykernel" in sys.modules:
        raise InputError(
            "With several devices the command is started again, once per device, which is not possible for code typed "
            "into Python or a notebook. Put it into a file, or use one device."
        )
    return [sys.executable, *sys.orig_argv[1:]]


def lead(command: Sequence[str], processes: int) -> int:
    """Run a command as several ranks and return the exit status.

    Raises:
        ProcessDied: a rank was killed, or failed without an error of rank 0 that says why.
    """
    with _Ranks(command, processes) as ranks, _signals_passed_on(ranks):
        ranks.wait()
        return ranks.status()


class _Ranks:
    """The ranks of a run; those that still run at the end of the block are killed."""

    def __init__(self, command: Sequence[str], processes: int) -> None:
        self.command, self.count = list(command), processes
        self.processes: list[subprocess.Popen[bytes]] = []
        self.hidden: list[IO[bytes] | None] = []  # stderr of each rank; None: rank 0, which writes to the terminal
        self.first: int | None = None  # rank that failed first
        self.received: list[int] = []  # signals that were passed on
        self.ended: set[int] = set()  # ranks that the parent killed
        self.message = b""  # what ranks sent through the socket: the run folder

    def __enter__(self) -> _Ranks:
        self.line, line_of_ranks = socket.socketpair()
        self.line.setblocking(False)
        common = {**_rendezvous(), "WORLD_SIZE": str(self.count), "NODE_RANK": "0", LINE: str(line_of_ranks.fileno())}
        try:
            # A rank inherits the block: a signal that arrived before its handler is installed would kill it without a
            # message. And a signal that the parent passed on before all ranks exist would reach some of them only.
            with line_of_ranks, _signals_blocked():
                for rank in range(self.count):
                    environment = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                    self._start(rank, environment, line_of_ranks)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, rank: int, environment: Mapping[str, str], line: socket.socket) -> None:
        # a file and not a pipe, which would fill up and block the rank, since the parent does not read it
        hidden = tempfile.TemporaryFile() if rank else None
        self.hidden.append(hidden)
        self.processes.append(
            subprocess.Popen(
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL if rank else None,
                stdout=subprocess.DEVNULL if rank else None,
                stderr=hidden,
                pass_fds=[line.fileno()],
                # A session of its own: Ctrl-C in the terminal does not reach the rank directly, but once, through the
                # parent; and `killpg` ends it with the processes that it started.
                start_new_session=True,
            )
        )

    def __exit__(self, *error: object) -> None:
        self.end()
        for hidden in self.hidden:
            if hidden is not None:
                hidden.close()
        self.line.close()

    def end(self) -> None:
        """Kill the ranks that still run, and whatever processes they or finished ranks have left in their groups."""
        for rank, process in enumerate(self.processes):
            if process.poll() is None:
                self.ended.add(rank)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait(self) -> None:
        """Wait until all ranks have ended; kill them if one was killed, or if they do not end after one is done."""
        deadline = float("inf")
        while None in (codes := [process.poll() for process in self.processes]):
            self._receive()
            failed = {rank: code for rank, code in enumerate(codes) if code}
            # a rank that ended by a signal that was passed on was interrupted by the user, and not killed
            killed = [rank for rank, code in failed.items() if code < 0 and -code not in self.received]
            if self.first is None and failed:
                self.first = next(iter(killed or _causes(failed)))
            if killed:
                break
            # a failed rank may soon be followed by others with better messages; a second signal means "now"
            if failed or codes[0] == 0 or len(self.received) > 1:
                deadline = min(deadline, time.monotonic() + GRACE)
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK)
        self._receive()
        self.end()

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while part := self.line.recv(4096):
                self.message += part

    def send(self, number: int) -> None:
        """Pass a signal on to all ranks."""
        self.received.append(number)
        for process in self.processes:
            process.send_signal(number)

    def status(self) -> int:
        """Exit status of the run when all have ended."""
        codes = [process.returncode for process in self.processes]
        # all ended between two checks: the lowest that failed and that the parent has not killed
        if self.first is None:
            failed = {rank: code for rank, code in enumerate(codes) if code and rank not in self.ended}
            self.first = next(iter(_causes(failed)), None)
        if self.first is None or codes[0] == 0:
            return 0
        # rank 0 has printed why it failed, unless it only noticed that another rank was gone
        if codes[0] > 0 and (self.first == 0 or codes[0] != LEFT_ALONE):
            return int(codes[0])
        code = codes[self.first]
        status = 128 - code if code < 0 else code
        # A rank that was killed could not write a reason; its loading processes may have written misleading ones.
        if code != -signal.SIGKILL:
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
        """Write the hidden stderr of a rank."""
        hidden = self.hidden[rank]
        if hidden is not None:
            hidden.seek(0)
            sys.stderr.write(hidden.read().decode(errors="replace"))
            sys.stderr.flush()

    def _folder(self) -> str | None:
        lines = self.message.decode(errors="replace").splitlines()
        return lines[0] if lines else None


def _causes(failed: Mapping[int, int]) -> list[int]:
    """Of ranks that have failed together, those that did not only lose a peer; all of them if there are none."""
    return [rank for rank, code in failed.items() if code != LEFT_ALONE] or list(failed)


def _rendezvous() -> dict[str, str]:
    """Address at which the ranks connect: that of the environment, or a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    defaults = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: os.environ.get(name, default) for name, default in defaults.items()}


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Signals that arrive in the block wait for its end; in processes started in it they wait for `follow`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def _signals_passed_on(ranks: _Ranks) -> Iterator[None]:
    """In the block Ctrl-C and SIGTERM are passed on to the ranks, and the parent keeps waiting for them."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        ranks.send(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Rank:
    """State of this process as a rank: its socket to the parent, the run folder, the other ranks."""

    def __init__(self) -> None:
        self.line: socket.socket | None = None
        self.folder: str | None = None
        self.peers: list[tuple[str, int]] = []


_rank = _Rank()


def follow() -> None:
    """In a rank: handle signals from now on, and end when the parent has ended. Does nothing in other processes."""
    # removed: a process that a rank starts is not a rank
    number = os.environ.pop(LINE, None)
    if number is None:
        return
    _rank.line = socket.socket(fileno=int(number))
    # Before the signals are unblocked, so that the thread inherits the mask and the main thread receives them.
    threading.Thread(target=_end_with_parent, args=(_rank.line,), daemon=True, name="parent").start()
    # a signal that has been waiting since the process was started is delivered here
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end_with_parent(line: socket.socket) -> None:
    # the parent sends nothing: `recv` returns when its end of the socket is closed, however it has ended
    with contextlib.suppress(OSError):
        while line.recv(1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    # if this rank hangs in a collective, no parent is left that could kill it
    time.sleep(6 * GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def tell(folder: Path) -> None:
    """Set the folder of the command, which is named if a process dies; later calls change nothing."""
    # the first one is that of the whole command; trainings in it have folders of their own
    if _rank.folder is not None:
        return
    _rank.folder = str(folder)
    if _rank.line is not None:
        with contextlib.suppress(OSError):
            _rank.line.send(f"{folder}\n".encode())


def hears() -> bool:
    """Whether this rank was started by `lead`, whose process keeps its stderr."""
    return _rank.line is not None


def has_peers() -> bool:
    """Whether this process is one of several that train together."""
    return bool(_rank.peers)


def remember(peers: Sequence[tuple[str, int]]) -> None:
    """Set the ranks of this run: machine and process number of each."""
    _rank.peers = [(machine, number) for machine, number in peers]


def gone(seconds: float = 2.0) -> ProcessDied | None:
    """In a rank that failed: the error that names other ranks that have died; None: they all run.

    The connection to a rank may break a moment before it has ended, so this waits for up to ``seconds``. Only ranks of
    the same machine are checked. In a run that `lead` started, the parent reports the death itself.
    """
    host, limit = socket.gethostname(), time.monotonic() + seconds
    while _rank.peers:
        dead = [rank for rank, (machine, pid) in enumerate(_rank.peers) if machine == host and not runs(pid)]
        if dead:
            names = " and ".join(f"rank {rank} (pid {_rank.peers[rank][1]})" for rank in dead)
            text = f"Of the {len(_rank.peers)} processes of this run, {names} died; the others can't continue."
            return ProcessDied(text, exit_status=LEFT_ALONE, saved=_rank.folder)
        if time.monotonic() > limit:
            break
        time.sleep(LOOK)
    return None


def speaks() -> bool:
    """Whether this rank reports the death of another: it has no parent, and is the lowest that runs on its machine."""
    if _rank.line is not None:
        return False
    host = socket.gethostname()
    running = [pid for machine, pid in _rank.peers if machine == host and runs(pid)]
    return running[:1] == [os.getpid()]


def runs(pid: int) -> bool:
    """Whether a process of this machine exists and has not ended."""
    # signal 0 is never sent: the call only checks whether the process exists
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A process that has ended keeps its number, as a zombie, until its launcher reads its exit status. The state is
    # the word after the name, which is in parentheses and may contain some. Only Linux has /proc.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True
