"""A real Slurm of two nodes on this machine, from Debian's packages unpacked into a folder; nothing is installed.

`python -m tests.jobs.places.slurm_cluster build/slurm` fetches and unpacks them (4 MB, as `make test-clusters` does).

One such cluster lives on a machine at a time. Slurm's programs get their tokens from a socket below /run whose name
nothing changes (`auth/slurm`): a second cluster takes it over, signs with its own key, and the first one's controller
refuses its own clients ("jwt_decode: Invalid argument").
"""

from __future__ import annotations

import fcntl
import getpass
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.jobs.places.cluster import until

PACKAGES = (
    "slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "libmunge2", "libhwloc15", "libjwt2",
    "libjansson4", "libb64-0d",
)  # fmt: skip
UNPACKED = Path(__file__).parents[3] / "build" / "slurm"
NODES = ("n1", "n2")
_ONLY = Path(tempfile.gettempdir()) / f"speciate-tests-slurm-{os.getuid()}.lock"
_ONLY_SECONDS = 1800
_DAEMONS = ("slurmctld", "slurmd", "slurmstepd")
_CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/slurm
CredType=cred/slurm
PluginDir={lib}/slurm-wlm
SlurmctldPort={ctld}
StateSaveLocation={state}/state
SlurmdSpoolDir={state}/spool-%n
SlurmctldPidFile={state}/ctld.pid
SlurmdPidFile={state}/%n.pid
SlurmctldLogFile={state}/ctld.log
SlurmdLogFile={state}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
MinJobAge=300
KillWait=10
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=2 RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=2 RealMemory=8000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def unpack(folder: Path) -> None:
    """By apt-get and dpkg, as whoever calls it."""
    debs, root = folder / "debs", folder / "root"
    debs.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=debs, check=True)
    for deb in debs.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(deb), str(root)], check=True)
    for name in _DAEMONS:  # they look at their own name
        link = root / "usr" / "sbin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"{name}-wlm")


def why_not(folder: Path = UNPACKED) -> str:
    """Why it cannot run here; empty where it can."""
    there = (folder / "root" / "usr" / "sbin" / "slurmctld").exists()
    return "" if there else f"no Slurm in {folder}: make test-clusters unpacks one"


class SlurmCluster:
    def __init__(self, state: Path, unpacked: Path = UNPACKED) -> None:
        self._only = _ONLY.open("a")
        until(self._is_only, _ONLY_SECONDS)
        self._root, self._state = unpacked / "root", state
        lib = self._root / "usr" / "lib" / "x86_64-linux-gnu"
        for name in ("state", "bin"):
            (state / name).mkdir(parents=True)
        key = state / "slurm.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        ports = dict(zip(("ctld", *NODES), free_ports(3), strict=True))
        conf = state / "slurm.conf"
        conf.write_text(_CONF.format(host=socket.gethostname(), user=getpass.getuser(), lib=lib, state=state, **ports))
        self._env = {**os.environ, "LD_LIBRARY_PATH": f"{lib}:{lib}/slurm-wlm", "SLURM_CONF": str(conf)}
        self.programs = state / "bin"
        for name in ("sbatch", "srun", "squeue", "scancel"):
            words = f"LD_LIBRARY_PATH={lib}:{lib}/slurm-wlm SLURM_CONF={conf}"
            (self.programs / name).write_text(f'#!/bin/sh\nexec env {words} {self._root}/usr/bin/{name} "$@"\n')
            (self.programs / name).chmod(0o755)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("slurmctld", *NODES):
            self.begin(name)
        until(lambda: self.ask("sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"], 60)

    def _is_only(self) -> bool:
        try:
            fcntl.flock(self._only, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def begin(self, name: str) -> None:
        sbin = self._root / "usr" / "sbin"
        node = [str(sbin / "slurmd"), "-D", "-N", name, "-d", str(sbin / "slurmstepd")]
        argv = [str(sbin / "slurmctld"), "-D"] if name == "slurmctld" else node
        (self._state / f"spool-{name}").mkdir(exist_ok=True)
        with (self._state / f"{name}.out").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *argv], stdout=log, stderr=log, env=self._env, start_new_session=True
            )

    def kill(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGKILL)
        self._processes[name].wait()

    def ask(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [self._root / "usr" / "bin" / program, *arguments], env=self._env, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.stdout

    def node_of(self, job: str) -> str:
        """Of a running job whose name ends so."""
        lines = (line.split("|") for line in self.ask("squeue", "-h", "-t", "R", "-o", "%j|%N").splitlines())
        return next(node for name, node in lines if name.endswith(job))

    def close(self) -> None:
        self.ask("scancel", "--user", getpass.getuser(), "--signal=KILL", "--full")
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._only.close()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    folder = Path(sys.argv[1]).absolute()
    if why_not(folder):
        unpack(folder)
