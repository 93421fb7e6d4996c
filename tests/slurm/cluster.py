"""A private SLURM on the loopback interface, for tests and benchmarks: several nodes on one host, no service manager.

    python -m tests.slurm.cluster start FOLDER     # prints the line that puts its commands into a shell
    python -m tests.slurm.cluster stop FOLDER      # stops what was started from FOLDER, and nothing else

Everything lies in FOLDER: configuration, keys, state, logs, and the number and start time of every process, so that a
number which the system has given to another process since is never mistaken for ours. Needs Debian's slurm-wlm and
munge (`missing` says what is not there). Nodes c1 to c3 have 8 pretended CPUs, g1 has two pretended GPUs; partitions
are `cpu`, `gpu`, `low` (preempted jobs are requeued) and `lowcancel` (preempted jobs are cancelled). There are no
cgroups: memory is watched by SLURM's own sampling, once a second.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr", "sshare", "sdiag")
NODES = ("c1", "c2", "c3", "g1")
SEARCHED = f"{os.environ['PATH']}:/usr/sbin:/sbin"
START_SECONDS = 30.0

CONFIGURATION = """
ClusterName=atlas
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
# a requeued job is held for cred_expire seconds; the default is 120
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPidFile={folder}/slurmctld.own
SlurmdPidFile={folder}/slurmd-%n.own
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
GresTypes=gpu
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=10
MessageTimeout=10
TCPTimeout=2
KillWait={kill_wait}
UnkillableStepTimeout=20
InactiveLimit=0
WaitTime=0
MinJobAge=86400
MaxJobCount=50000
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,bf_continue
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
{nodes}
PartitionName=cpu Nodes=c[1-3] Default=YES MaxTime=1-0 DefaultTime=10 PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=c[1-3] MaxTime=1-0 DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=lowcancel Nodes=c[1-3] MaxTime=1-0 DefaultTime=10 PriorityTier=1 PreemptMode=CANCEL
PartitionName=gpu Nodes=g1 MaxTime=1-0 DefaultTime=10 PriorityTier=10 PreemptMode=OFF
"""


def missing() -> list[str]:
    """The programs that a cluster needs and that are not installed."""
    return [name for name in (*DAEMONS, *COMMANDS[:6]) if shutil.which(name, path=SEARCHED) is None]


class Cluster:
    """A cluster in a folder; the same folder in another process is the same cluster."""

    def __init__(self, folder: Path, kill_wait: int = 5) -> None:
        self.folder, self.kill_wait = folder.resolve(), kill_wait
        self.configuration = self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with the cluster's commands first in PATH.

        They are wrappers: the plugin drops SLURM_CONF before it calls srun inside a job, and PATH stays.
        """
        own = f"{self.folder}/bin:"
        path = os.environ["PATH"]
        return os.environ | {"PATH": path if path.startswith(own) else own + path}

    def start(self) -> None:
        """Start every process that does not run, and wait until all nodes take jobs.

        Raises:
            RuntimeError: a program is missing, or the cluster did not come up.
        """
        if missing():
            raise RuntimeError(f"not installed: {', '.join(missing())} (Debian: slurm-wlm, munge)")
        if not self.configuration.exists():
            self._configure()
        key, socket_file = self.folder / "munge.key", self.folder / "munge.socket"
        places = (f"--key-file={key}", f"--socket={socket_file}", f"--pid-file={self.folder}/munged.own")
        logs = (f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munge.seed")
        self._launch("munged", "munged", "-F", "--force", *places, *logs, "--num-threads=2")
        self._wait(socket_file.exists, "munged's socket")
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self._wait(self.ready, "idle nodes")

    def ready(self) -> bool:
        """Whether every node takes jobs; nodes that an earlier life left down are resumed."""
        states = dict(line.split() for line in self.ask("sinfo", "-h", "-N", "-o", "%N %t").splitlines())
        for node, state in states.items():
            if state.rstrip("*") in ("down", "drain", "drng", "fail"):
                self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
        return bool(states) and all(state in ("idle", "mix", "alloc", "comp") for state in states.values())

    def stop(self) -> None:
        """Cancel what runs and stop the recorded processes, then those of their jobs that a dead node has left."""
        if self._alive("slurmctld"):
            self.run("scancel", "--quiet", f"--user={os.getuid()}", check=False)
            with contextlib.suppress(RuntimeError):
                self._wait(lambda: not self.ask("squeue", "-h", "-t", "R,CG,S", "-o", "%i"), "running jobs to end", 5.0)
        for name in (*(f"slurmd-{node}" for node in NODES), "slurmctld", "munged"):
            self._kill(name, signal.SIGTERM)
        mark = f"SLURM_CONF={self.configuration}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                variables = (folder / "environ").read_bytes().split(b"\0")
                job = any(variable.startswith(b"SLURM_JOB_ID=") for variable in variables)
                if mark in variables and (job or (folder / "comm").read_text().strip() == "slurmstepd"):
                    os.kill(int(folder.name), signal.SIGKILL)

    # what tests do to it

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command with the cluster's tools; `check` raises with what it said."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done

    def ask(self, *command: str) -> str:
        """What a command prints; nothing if it fails."""
        return self.run(*command, check=False).stdout.strip()

    def jobs(self, *states: str) -> dict[str, tuple[str, str]]:
        """State and comment of every job, or of those in one of the states, by number."""
        chosen = ",".join(states) or "all"
        lines = self.ask("squeue", "-h", f"--states={chosen}", "-o", "%i|%T|%k").splitlines()
        return {number: (state, comment) for number, state, comment in (line.split("|", 2) for line in lines)}

    def node_of(self, job: str) -> str:
        """The node that a job runs on."""
        return self.ask("squeue", "-h", "-j", job, "-o", "%N")

    def _start_times(self) -> list[str]:
        return self.ask("squeue", "-h", "--states=RUNNING", "-o", "%S").split()

    def start_controller(self) -> None:
        """Start slurmctld and wait for its answer."""
        self._launch("slurmctld", "slurmctld", "-D")
        self._wait(lambda: self.run("scontrol", "ping", check=False).returncode == 0, "slurmctld")

    def kill_controller(self) -> None:
        """End slurmctld at once, once it has written down the jobs that run: it does so every few seconds.

        A job that is not written down is unknown to the next slurmctld, and its number is given to another.
        """
        began = [time.mktime(time.strptime(at, "%Y-%m-%dT%H:%M:%S")) for at in self._start_times()]
        state = self.folder / "state/job_state"
        # what begins and is written down within one second is not told apart, and not waited for longer
        with contextlib.suppress(RuntimeError):
            self._wait(lambda: state.stat().st_mtime > max(began, default=0) + 1, "slurmctld's state", 15.0)
        self._kill("slurmctld", signal.SIGKILL)

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        (self.folder / "spool" / node).mkdir(parents=True, exist_ok=True)
        self._launch(f"slurmd-{node}", "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """End a node as a power cut does: its daemon and all that its jobs run.

        What watches over a job (slurmstepd) goes first, else it would still report how the job ended.
        """
        own = {f"SLURM_CONF={self.configuration}".encode(), f"SLURMD_NODENAME={node}".encode()}
        watching, working = set(), set()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if own <= set((folder / "environ").read_bytes().split(b"\0")):
                    working.add(int(folder.name))
                    parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                    if Path(f"/proc/{parent}/cmdline").read_bytes().startswith(b"slurmstepd"):
                        watching.add(int(parent))
        self._kill_all(watching)
        self._kill(f"slurmd-{node}", signal.SIGKILL)
        self._kill_all(working)

    def _kill_all(self, processes: set[int]) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    # processes

    def _launch(self, name: str, *command: str) -> None:
        if self._alive(name):
            return
        program = shutil.which(command[0], path=SEARCHED) or command[0]
        environment = self.environment | {"SLURM_CONF": str(self.configuration)}
        with (self.folder / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                [program, *command[1:]],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.folder / f"{name}.pid").write_text(f"{process.pid} {_started(process.pid)}")

    def _alive(self, name: str) -> bool:
        file = self.folder / f"{name}.pid"
        if not file.exists():
            return False
        number, started = file.read_text().split(" ", 1)
        return started != "" and _started(int(number)) == started

    def _kill(self, name: str, how: signal.Signals) -> None:
        if self._alive(name):
            number = int((self.folder / f"{name}.pid").read_text().split()[0])
            os.kill(number, how)
            with contextlib.suppress(RuntimeError):
                self._wait(lambda: not self._alive(name), f"the end of {name}", 10.0)
            if self._alive(name):
                os.kill(number, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(number, 0)
        (self.folder / f"{name}.pid").unlink(missing_ok=True)

    def _wait(self, done: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.folder}: waited {seconds:.0f} s for {what}; see the logs there")
            time.sleep(0.1)

    # files

    def _configure(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        for name in ("state", "spool", "bin", "gpus"):
            (self.folder / name).mkdir(exist_ok=True)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        short = socket.gethostname().partition(".")[0]
        local = socket.gethostbyname(short).startswith("127.") if _resolves(short) else False
        host, port = short if local else "localhost", _free_ports(len(NODES) + 1)
        lines = []
        for number, node in enumerate(NODES, 1):
            kind = "Gres=gpu:fake:2 Feature=gpu" if node.startswith("g") else "Feature=cpu"
            place = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port + number}"
            lines.append(f"NodeName={node} {place} CPUs=8 RealMemory=8000 {kind} State=UNKNOWN")
        # SLURM wants a device file for each GPU; a link to one will do
        for number in range(2):
            (self.folder / f"gpus/gpu{number}").symlink_to("/dev/null")
        (self.folder / "gres.conf").write_text(
            f"AutoDetect=off\nNodeName=g1 Name=gpu Type=fake File={self.folder}/gpus/gpu[0-1]\n"
        )
        (self.folder / "cgroup.conf").touch()
        for command in COMMANDS:
            if real := shutil.which(command, path=SEARCHED.replace(f"{self.folder}/bin:", "")):
                wrapper = self.folder / "bin" / command
                wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.configuration} exec {real} "$@"\n')
                wrapper.chmod(0o755)
        values = {"host": host, "user": _user(), "port": port, "folder": self.folder, "nodes": "\n".join(lines)}
        self.configuration.write_text(CONFIGURATION.format(kill_wait=self.kill_wait, **values))


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _resolves(host: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(socket.gethostbyname(host))
    return False


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    for _ in range(100):
        # not the first free ones: several clusters may be starting at a time
        first = random.randrange(17000, 30000, count)
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in range(first, first + count):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise RuntimeError("no free ports")


def _started(process: int) -> str:
    """When a process started, in ticks since boot; empty if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


if __name__ == "__main__":
    what, place = sys.argv[1], Path(sys.argv[2])
    if what == "start":
        Cluster(place).start()
        print(f"export PATH={place.resolve()}/bin:$PATH")
    else:
        Cluster(place).stop()
