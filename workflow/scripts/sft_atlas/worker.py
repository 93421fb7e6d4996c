"""Local runs: one process imports the libraries once, and every job is a fork of it.

Importing torch, TRL and lm-eval takes 5 to 10 CPU seconds, more than most jobs of a small study. The first job of a
local workflow starts the worker; it listens on a socket in the workflow's own temporary folder, forks a child for each
job, and ends when the workflow's process is gone. Jobs stay separate processes with separate failures and logs. On a
cluster nothing of this is used: a job imports what it needs. Runs of one base find its weights loaded, too.
"""

import array
import contextlib
import importlib
import math
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sft_atlas.files import cpu_seconds, read_json, results_root, write_json
from sft_atlas.runtime.processes import process_start
from sft_atlas.runtime.settings import change, current
from sft_atlas.stage import stages

START_SECONDS = 300.0
# A job whose client has gone is asked to stop, and has this long to save what it can go on from.
STOP_SECONDS = 600.0
# What importing cost and, once the workflow has ended, what the worker and its jobs used in all.
RECORD = Path("logs/worker.json")


def preloaded() -> list[str]:
    """What the costly stages import, training first: it needs most of what the others do."""
    numeric = [stage for stage in stages().values() if stage.numeric]
    modules = [name for stage in numeric for name in (f"{stage.package}.run", *stage.imports)]
    return sorted(modules, key=lambda name: name != "sft_atlas.stages.train.run")


def share_imports() -> None:
    """Tell the jobs that this process starts where a worker listens; the first of them starts it."""
    folder = Path(tempfile.mkdtemp(prefix="sft-atlas-"))
    job = os.environ.get("SLURM_JOB_ID", "")
    change(worker=str(folder / "worker"), worker_owner=os.getpid(), worker_job=job)


def shares_imports() -> bool:
    """Whether the worker that this process has heard of is one of its own SLURM job, and so of its node."""
    job = os.environ.get("SLURM_JOB_ID")
    return bool(job) and current().worker_job == job


def request(path: Path, spec: Path) -> int:
    """Have the worker at a socket run a job, with this process's output and working folder; returns the exit status.

    A worker that is not there is started. If this process dies, or is asked to stop, so is its job.
    """
    with _connect(path) as connection:
        outputs = array.array("i", [sys.stdout.fileno(), sys.stderr.fileno()])
        text = f"{Path.cwd()}\0{spec}".encode()
        connection.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, outputs)])
        # Asked to stop, pass it on and wait: SLURM kills what is left of a step when its first process has ended.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: _hang_up(connection))
        answer = connection.recv(16)
    if not answer:
        print("error: the worker ended before the job did; run it again", file=sys.stderr)
        return 1
    status = int(answer)
    if status < 0:
        print(f"error: the job was killed by signal {-status} (9: perhaps memory ran out)", file=sys.stderr)
    return status % 256


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def serve(path: Path, owner: int, run: Callable[[Path], int]) -> None:
    """Import everything once, then fork a child for each request until the owning process is gone.

    A child calls `run` with the specification of its job, and exits with what it returns.
    """
    started = time.process_time()
    for module in preloaded():
        importlib.import_module(module)
    record = {"import_cpu_seconds": time.process_time() - started}
    write_json(RECORD, record)
    # the end of the workflow ends this process; SLURM's warning is for the jobs, which still need it
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        server.bind(str(temporary))
        server.listen(64)
        temporary.replace(path)
        clients: dict[int, socket.socket] = {}
        deadlines: dict[int, float] = {}
        while process_start(owner):
            waiting = [client for child, client in clients.items() if child not in deadlines]
            ready, _, _ = select.select([server, *waiting], [], [], 0.05)
            if server in ready:
                connection, _ = server.accept()
                if child := _start(connection, server, run):
                    clients[child] = connection
            for child in [child for child, client in clients.items() if client in ready]:
                # a client sends nothing after its request: it is gone, or was itself asked to stop
                deadlines[child] = _ask_to_stop(child)
            _settle(clients, deadlines)
        deadlines |= {child: _ask_to_stop(child) for child in clients.keys() - deadlines.keys()}
        while clients:
            _settle(clients, deadlines)
            time.sleep(0.05)
    write_json(RECORD, record | {"cpu_seconds": cpu_seconds()})
    shutil.rmtree(path.parent, ignore_errors=True)


def _start(connection: socket.socket, server: socket.socket, run: Callable[[Path], int]) -> int | None:
    message, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(8))
    if not ancillary:
        # the client was killed before it asked for anything
        connection.close()
        return None
    outputs = array.array("i")
    outputs.frombytes(ancillary[0][2])
    folder, spec = message.decode().split("\0")
    _load_base(Path(folder) / spec)
    child = os.fork()
    if child:
        for descriptor in outputs:
            os.close(descriptor)
        return child
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setpgid(0, 0)
        server.close()
        os.chdir(folder)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        for descriptor in outputs:
            os.close(descriptor)
        status = run(Path(spec))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # not sys.exit: a fork must not run its parent's clean-up
        os._exit(status)


def _load_base(path: Path) -> None:
    """Have the base of a run in memory before the fork; what goes wrong here is the job's own error to report."""
    from sft_atlas.models import device

    with contextlib.suppress(Exception):
        spec = read_json(path)
        if spec["stage"] == "train":
            base = results_root(path, spec["output"]) / spec["inputs"]["base"]
            device.load_for_children(base.with_name("model"))


def _settle(clients: dict[int, socket.socket], deadlines: dict[int, float]) -> None:
    """Tell the clients of jobs that have ended how, and kill those whose time to stop is over."""
    for child, client in list(clients.items()):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            with contextlib.suppress(OSError):
                client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            client.close()
            del clients[child]
            deadlines.pop(child, None)
        elif time.monotonic() > deadlines.get(child, math.inf):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)


def _ask_to_stop(child: int) -> float:
    """Ask a job and what it has started to stop; returns by when it must have."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGTERM)
    return time.monotonic() + STOP_SECONDS


def _connect(path: Path) -> socket.socket:
    deadline = time.monotonic() + START_SECONDS
    starting = path.with_suffix(".starting")
    while time.monotonic() < deadline:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
        try:
            starting.touch(exist_ok=False)
        except FileExistsError:
            pid = starting.read_text()
            if pid and not process_start(int(pid)):
                if not path.exists():
                    break
                # it had begun to listen, and was killed since, by the kernel perhaps: start another
                path.unlink(missing_ok=True)
                starting.unlink(missing_ok=True)
        else:
            starting.write_text(str(_launch(path)))
        time.sleep(0.05)
    log = path.with_suffix(".log")
    tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    raise RuntimeError(
        f"the worker that shares imports did not start; set share_imports to false to do without\n{tail}"
    )


def _launch(path: Path) -> int:
    owner = str(current().worker_owner)
    with path.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sft_atlas.job", "--serve", str(path), owner],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return process.pid
