"""The scripts of launch/, with fake clusters: what they call, and what they pass on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from fake_tools import SCANCEL, FakeTools
from tiny_run import FLAGS as TINY
from tiny_run import ROOT, finish

FLAGS = ["--config=configs/mnist_slerp.py", "--workdir=/shared/a run", "--config.flow.steps=3"]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))


@pytest.fixture
def fakes(tmp_path):
    return FakeTools(tmp_path / "bin")


def run(fakes, script, *flags, code=0, **more) -> str:
    """What it says on stderr."""
    return finish(fakes.start(script, *flags, **more), code, timeout=60)[1]


def modules(fakes, tool="python") -> list[str]:
    """The commands of sphere_jax that were started, in order."""
    found = [re.findall(r"sphere_jax\.(\w+)", " ".join(call)) for call in fakes.calls(tool)]
    return [name for names in found for name in names]


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_shellcheck_finds_nothing():
    program = shutil.which("shellcheck", path=Path(sys.executable).parent)
    assert program, "pip install -r requirements-test.txt brings shellcheck"
    line = [program, "--external-sources", *(file.relative_to(ROOT) for file in SCRIPTS)]
    found = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


class TestGpuHost:
    def test_checks_then_runs_on_all_gpus(self, fakes):
        run(fakes, "gpu_host.sh", *FLAGS)
        checks, command = fakes.calls("python")
        assert checks[1:] == ["-m", "sphere_jax.preflight", "--hosts=1", "--devices_per_host=4",
                              "--platform=gpu", *FLAGS]  # fmt: skip
        assert command[1:] == ["-m", "sphere_jax.main", *FLAGS]

    @pytest.mark.parametrize("code", [1, 2])
    def test_what_fails_or_is_refused_is_not_repeated(self, fakes, code):
        fakes.codes(code)
        run(fakes, "gpu_host.sh", *FLAGS, code=code)
        assert modules(fakes) == ["preflight"]
        fakes.codes(0, code)
        run(fakes, "gpu_host.sh", *FLAGS, code=code)
        assert modules(fakes)[1:] == ["preflight", "main"]

    def test_what_is_killed_or_loses_a_process_resumes(self, fakes):
        fakes.codes(0, 137, 75, 0)
        said = run(fakes, "gpu_host.sh", *FLAGS)
        assert modules(fakes) == ["preflight", "main", "main", "main"]
        assert "ended with exit code 137; started again, resuming from what is saved" in said

    def test_it_gives_up_in_the_end(self, fakes):
        fakes.codes(0, 75, 75, 75, 75)
        assert "three times within 120 s" in run(fakes, "gpu_host.sh", *FLAGS, code=75)
        assert modules(fakes).count("main") == 3
        fakes.codes(0, 75, 75, 75, 75)
        assert "after 2 starts" in run(
            fakes, "gpu_host.sh", *FLAGS, code=75, RETRIES="2", SHORT="0"
        )

    def test_a_signal_reaches_the_run_which_is_not_started_again(self, fakes):
        fakes.codes(0, "wait")
        process = fakes.start("gpu_host.sh", *FLAGS)
        until((fakes.folder / "waiting").exists)
        process.send_signal(signal.SIGTERM)
        finish(process, 130, timeout=60)
        assert ["python", "TERM"] in fakes.calls("python")
        assert modules(fakes) == ["preflight", "main"]

    @pytest.mark.parametrize("script", ["gpu_host.sh", "in_container.sh"])
    def test_a_signal_that_the_checks_do_not_see_starts_no_run(self, fakes, script):
        """They have just ended well."""
        fakes.does(
            "python", 'echo x >"$fakes/waiting"; trap "exit 0" TERM; while :; do sleep 0.05; done'
        )
        process = fakes.start(script, *FLAGS, HOSTS="1", CHIPS="4")
        until((fakes.folder / "waiting").exists)
        process.send_signal(signal.SIGTERM)
        finish(process, 130, timeout=60)
        assert modules(fakes) == ["preflight"]

    def test_in_a_container(self, fakes):
        flags = ["--config=c", "--out=/caches/x"]
        given = {"IMAGE": "mine:gpu", "MOUNTS": "/data /caches", "COMMAND": "prepare latents"}
        run(fakes, "gpu_host.sh", *flags, **given)
        checks, command = fakes.calls("docker")
        for call in (checks, command):
            assert call[1:3] == ["run", "--rm"] and "mine:gpu" in call and "/data:/data" in call
            assert call[call.index("--gpus") + 1] == "all" and "XLA_FLAGS" in call
        assert command[-5:] == ["-m", "sphere_jax.prepare", "latents", *flags]

    def test_a_command_that_is_not_there_is_an_error(self, fakes):
        run(fakes, "gpu_host.sh", *FLAGS, code=127, PYTHON="/no/python")

    def test_compiled_programs_are_kept_beside_the_run(self, fakes):
        fakes.does("python", 'echo "kept in $JAX_COMPILATION_CACHE_DIR" >&2')
        for flags in (["--workdir=~/runs/x"], ["--workdir", f"{fakes.folder}/runs/x"]):
            assert f"kept in {fakes.folder}/runs/.compiled" in run(fakes, "gpu_host.sh", *flags)

    @pytest.mark.slow
    def test_a_second_start_compiles_nothing_again(self, fakes, tmp_path):
        """A whole run, and the same in another folder beside it."""
        real = f'[[ $2 == sphere_jax.preflight ]] || exec {sys.executable} "$@"'
        fakes.does("python", real)
        given = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": os.environ["XLA_FLAGS"]}
        for limit in ("COMPILE_TIME_SECS", "ENTRY_SIZE_BYTES"):
            given[f"JAX_PERSISTENT_CACHE_MIN_{limit}"] = "0"  # every program is kept
        kept = []
        for name in ("first", "second"):
            workdir = tmp_path / "runs" / name
            workdir.parent.mkdir(exist_ok=True)
            command = (*TINY, "--config.stages=vae,flow", f"--workdir={workdir}")
            finish(fakes.start("gpu_host.sh", *command, **given), timeout=800)
            assert (workdir / "report.html").exists()
            kept.append(sorted(file.name for file in (workdir.parent / ".compiled").iterdir()))
        assert len(kept[0]) > 10 and kept[1] == kept[0]

    @pytest.mark.parametrize("folder", ["~/x", "$HOME/x"])
    def test_a_folder_that_a_container_has_not_is_refused(self, fakes, folder):
        said = run(fakes, "gpu_host.sh", f"--workdir={folder}", code=2, IMAGE="mine:gpu")
        assert f"{folder}: write the whole path" in said and not fakes.calls("docker")

    def test_a_host_without_gpus_is_refused(self, fakes):
        fakes.does("nvidia-smi", "exit 9")
        assert "lists no GPU" in run(fakes, "gpu_host.sh", *FLAGS, code=2)


class TestSlurm:
    VARIABLES = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_SUBMIT_DIR": str(ROOT),
    }

    def slurm(self, fakes, *flags, code=0, **more):
        return run(fakes, "slurm.sh", *flags, code=code, **self.VARIABLES | more)

    def test_one_task_a_node_with_all_its_gpus(self, fakes):
        self.slurm(fakes, *FLAGS)
        checks, command = fakes.calls("srun")
        assert "--kill-on-bad-exit=0" in checks and "--cpu-bind=none" in checks
        assert checks[-6:] == ["--hosts=2", "--devices_per_host=8", "--platform=gpu", *FLAGS]
        assert command[-4:] == ["sphere_jax.main", *FLAGS]
        text = (ROOT / "launch" / "slurm.sh").read_text()
        for option in ("ntasks-per-node=1", "gpus-per-node=8", "exclusive", "requeue",
                       "signal=B:USR1@300", "open-mode=append"):  # fmt: skip
            assert f"\n#SBATCH --{option}\n" in text

    def test_the_time_limit(self, fakes):
        """Slurm tells the script alone; the run saves and the job is queued again."""
        fakes.codes(0, "wait")
        process = fakes.start("slurm.sh", *FLAGS, **self.VARIABLES)
        until((fakes.folder / "waiting").exists)
        process.send_signal(signal.SIGUSR1)
        finish(process, 130, timeout=60)
        assert fakes.calls("scancel") == [["scancel", "--quiet", "--signal=TERM", "4711"]]
        assert ["python", "TERM"] in fakes.calls("python")
        assert fakes.calls("scontrol") == [["scontrol", "requeue", "4711"]]

    def test_the_time_limit_while_slurm_is_busy(self, fakes):
        busy = '[[ -e $fakes/busy ]] || { touch "$fakes/busy"; exit 1; }\n'
        fakes.does("scancel", busy + SCANCEL)
        fakes.codes(0, "wait")
        process = fakes.start("slurm.sh", *FLAGS, **self.VARIABLES)
        until((fakes.folder / "waiting").exists)
        process.send_signal(signal.SIGUSR1)
        finish(process, 130, timeout=60)
        assert len(fakes.calls("scancel")) == 2 and len(fakes.calls("scontrol")) == 1

    def test_a_cancelled_job_is_not_queued_again(self, fakes):
        fakes.codes(0, "wait")
        process = fakes.start("slurm.sh", *FLAGS, **self.VARIABLES)
        until((fakes.folder / "waiting").exists)
        process.send_signal(signal.SIGTERM)
        step = int((fakes.folder / "step").read_text())
        os.kill(step, signal.SIGTERM)  # Slurm's signal to the tasks
        finish(process, 130, timeout=60)
        assert fakes.calls("scontrol") == []

    @pytest.mark.parametrize(("code", "queued"), [(0, 0), (1, 0), (2, 0), (75, 1), (137, 1)])
    def test_what_is_queued_again(self, fakes, code, queued):
        fakes.codes(0, code)
        self.slurm(fakes, *FLAGS, code=code)
        assert len(fakes.calls("scontrol")) == queued

    @pytest.mark.parametrize(("more", "seconds"), [({}, 300), ({"SPHERE_JAX_WAIT": "9"}, 9)])
    def test_tasks_wait_for_others_that_come_late(self, fakes, more, seconds):
        fakes.does("srun", 'echo "$SPHERE_JAX_WAIT s" >&2')
        assert f"{seconds} s\n" in self.slurm(fakes, *FLAGS, **more)

    def test_checks_that_fail_start_nothing(self, fakes):
        fakes.codes(2)
        self.slurm(fakes, *FLAGS, code=2)
        assert modules(fakes) == ["preflight"] and fakes.calls("scontrol") == []

    def test_it_gives_up_in_the_end(self, fakes):
        fakes.codes(0, 75)
        assert "not queued again" in self.slurm(fakes, *FLAGS, code=75, SLURM_RESTART_COUNT="3")
        assert fakes.calls("scontrol") == []

    def test_retries_limit_the_starts(self, fakes):
        """Of a run that dies after minutes; not after time limits, which are no failures."""
        given = {"SHORT": "0", "RETRIES": "5"}
        for restarts, queued in ((3, 1), (4, 1)):
            fakes.codes(0, 137)
            said = self.slurm(fakes, *FLAGS, code=137, SLURM_RESTART_COUNT=str(restarts), **given)
            assert len(fakes.calls("scontrol")) == queued
        assert "ended with exit code 137; not queued again after 5 starts" in said
        fakes.codes(0, "wait")
        more = self.VARIABLES | given | {"SLURM_RESTART_COUNT": "4"}
        process = fakes.start("slurm.sh", *FLAGS, **more)
        until((fakes.folder / "waiting").exists)
        process.send_signal(signal.SIGUSR1)
        finish(process, 130, timeout=60)
        assert len(fakes.calls("scontrol")) == 2

    def test_a_cluster_that_does_not_say_how_many_gpus_a_node_has(self, fakes):
        given = {k: v for k, v in self.VARIABLES.items() if k != "SLURM_GPUS_ON_NODE"}
        run(fakes, "slurm.sh", *FLAGS, **given)
        checks, _ = fakes.calls("srun")
        assert checks[-5:] == ["--hosts=2", "--platform=gpu", *FLAGS]

    def test_a_cluster_that_does_not_queue_again(self, fakes):
        fakes.does("scontrol", "exit 1")
        fakes.codes(0, 75)
        assert "sbatch the same command" in self.slurm(fakes, *FLAGS, code=75)

    def test_in_a_container(self, fakes):
        fakes.does("srun", 'while [[ $1 == --* ]]; do shift; done; "$@"')
        given = {"IMAGE": "mine+gpu", "MOUNTS": "/data"}
        self.slurm(fakes, *FLAGS, **given)
        assert f"--container-mounts={ROOT}:{ROOT},/data" in fakes.calls("srun")[0]
        assert modules(fakes) == ["preflight", "main"]

    def test_another_folder_is_refused(self, fakes, tmp_path):
        said = self.slurm(fakes, *FLAGS, code=2, SLURM_SUBMIT_DIR=str(tmp_path))
        assert "sbatch it in the repository's folder" in said


GCLOUD = """
case $4 in
  describe)
    state=$(sed -n 1p "$fakes/states"); sed -i 1d "$fakes/states"
    if [[ $state == *:* ]]; then printf 'ERROR: (gcloud) %s\n\n' "$state" >&2; exit 1; fi
    printf '%s\t2\n' "$state" ;;
  ssh)
    for each in "$@"; do [[ $each == --command=* ]] && command=${each#--command=}; done
    for host in 0 1; do
      code=0
      if [[ $command == *sphere_jax.* ]]; then
        code=$(sed -n 1p "$fakes/codes" 2>/dev/null); sed -i 1d "$fakes/codes" 2>/dev/null
      fi
      [[ $code == gone ]] || echo "exit code ${code:-0} on host-$host"
    done ;;
esac
"""


class TestTpuPod:
    @pytest.fixture(autouse=True)
    def gcloud(self, fakes):
        fakes.does("gcloud", GCLOUD)
        self.states(fakes, *["READY"] * 9)

    def states(self, fakes, *states):
        (fakes.folder / "states").write_text("".join(f"{state}\n" for state in states))

    def pod(self, fakes, *flags, code=0, **more):
        return run(fakes, "tpu_pod.sh", *flags, code=code, TPU="pod", ZONE="z", **more)

    def ssh(self, fakes):
        """The commands that the hosts were given."""
        calls = [call for call in fakes.calls("gcloud") if call[4] == "ssh"]
        assert all("--worker=all" in call and "--zone=z" in call for call in calls)
        return [call[-1].removeprefix("--command=") for call in calls]

    def test_every_host_gets_python_checks_and_the_command(self, fakes):
        self.pod(fakes, *FLAGS, SPHERE_JAX_WAIT="90")
        folder, environment, checks, command = self.ssh(fakes)
        assert "test -d sphere_jax" in folder and "launch/environment.sh tpu" in environment
        python = "SPHERE_JAX_WAIT=90 .venv-tpu/bin/python"
        assert f"{python} -m sphere_jax.preflight --hosts=2 --platform=tpu" in checks
        assert r"--workdir=/shared/a\ run" in checks
        assert r"-m sphere_jax.main --config=configs/mnist_slerp.py" in command
        assert "SPHERE_JAX_POD=1" in command and "JAX_COMPILATION_CACHE_DIR=/shared/" in command

    @pytest.mark.parametrize(
        ("codes", "passed_on"), [((2, 2), 2), ((1, 75), 1), ((75, 2), 2), ((0, 1), 1)]
    )
    def test_what_hosts_end_with_is_passed_on(self, fakes, codes, passed_on):
        fakes.codes(0, 0, *codes)
        self.pod(fakes, *FLAGS, code=passed_on)
        assert len(self.ssh(fakes)) == 4

    def test_a_lost_host_is_waited_for_and_the_run_resumes(self, fakes):
        fakes.codes(0, 0, "gone", 75, 0, 0, 0, 0)
        said = self.pod(fakes, *FLAGS)
        assert "ended with exit code 75; started again" in said
        commands = self.ssh(fakes)
        assert sum("sphere_jax.main" in each for each in commands) == 2
        assert sum("kill -TERM" in each for each in commands) == 1  # what was left on a host

    def test_a_preempted_slice_is_created_anew(self, fakes):
        self.states(fakes, "READY", "PREEMPTED", "READY")
        fakes.codes(0, 0, "gone", 75)
        self.pod(fakes, *FLAGS, CREATE="--version=v --spot", SETUP="sudo mount x")
        actions = [call[4] for call in fakes.calls("gcloud") if call[4] in ("delete", "create")]
        assert actions == ["delete", "create"]
        [create] = [call for call in fakes.calls("gcloud") if call[4] == "create"]
        assert create[5:] == ["pod", "--zone=z", "--version=v", "--spot"]
        assert any("sudo mount x" in each for each in self.ssh(fakes))

    def test_a_slice_that_is_not_there_is_created(self, fakes):
        missing = "NOT_FOUND: Resource 'projects/p/locations/z/nodes/pod' was not found"
        self.states(fakes, missing, "READY")
        self.pod(fakes, *FLAGS, CREATE="--version=v")
        actions = [call[4] for call in fakes.calls("gcloud") if call[4] in ("delete", "create")]
        assert actions == ["create"] and len(self.ssh(fakes)) == 4
        self.states(fakes, missing)
        assert "pod is MISSING, not READY" in self.pod(fakes, *FLAGS, code=2)

    @pytest.mark.parametrize(
        "failure", ["PERMISSION_DENIED: Location z is not found", "gaierror: no name resolution"]
    )
    def test_none_is_created_where_gcloud_cannot_say(self, fakes, failure):
        self.states(fakes, failure)
        said = self.pod(fakes, *FLAGS, code=1, CREATE="--version=v")
        assert said == f"tpu_pod.sh: gcloud cannot describe pod: ERROR: (gcloud) {failure}\n"
        assert [call[4] for call in fakes.calls("gcloud")] == ["describe"]

    def test_a_connection_that_is_lost_during_a_run_is_tried_again(self, fakes):
        failure = "gaierror: no name resolution"
        self.states(fakes, "READY", failure, "READY")
        fakes.codes(0, 0, "gone", "gone")
        said = self.pod(fakes, *FLAGS, CREATE="--version=v")
        assert f"cannot describe pod: ERROR: (gcloud) {failure}\n" in said
        self.states(fakes, "READY", *[failure] * 9)
        fakes.codes(0, 0, "gone", "gone")
        assert "exit code 75; not started again" in self.pod(
            fakes, *FLAGS, code=75, CREATE="--version=v"
        )
        assert not [call for call in fakes.calls("gcloud") if call[4] == "create"]

    def test_a_slice_that_is_not_ready_is_refused(self, fakes):
        self.states(fakes, "STOPPED")
        assert "pod is STOPPED, not READY" in self.pod(fakes, *FLAGS, code=2)
        assert self.ssh(fakes) == []

    def test_in_a_container(self, fakes):
        self.pod(fakes, *FLAGS, IMAGE="mine:tpu", MOUNTS="/mnt", COMMAND="prepare latents")
        _, pull, checks, command = self.ssh(fakes)
        assert "docker pull -q mine:tpu" in pull and "mine:tpu python -m sphere_jax.pre" in checks
        assert "--volume /mnt:/mnt" in command and "sphere_jax.prepare latents" in command

    def test_a_signal_stops_the_hosts(self, fakes):
        wait = '[[ $* == *sphere_jax.main* ]] && { touch "$fakes/waiting"; sleep 1; }\n'
        fakes.does("gcloud", wait + GCLOUD)
        fakes.codes(0, 0, 130, 130)
        process = fakes.start("tpu_pod.sh", *FLAGS, TPU="pod", ZONE="z")
        until((fakes.folder / "waiting").exists)
        process.send_signal(signal.SIGTERM)
        finish(process, 130, timeout=60)
        assert "kill -TERM $(cat .running)" in self.ssh(fakes)[-1]

    @pytest.mark.parametrize("where", ["environment.sh", "sphere_jax.preflight", "sleep"])
    def test_a_signal_before_the_run_starts_none(self, fakes, where):
        """Where no host has anything to stop, which is an error there."""
        wait = f'[[ $* == *{where}* ]] && {{ touch "$fakes/waiting"; sleep 1; }}\n'
        nothing = '[[ $* == *"&& kill -TERM"* ]] && exit 1\n'
        fakes.does("gcloud", wait + nothing + GCLOUD)
        fakes.does("sleep", '[[ $1 == 7 ]] && touch "$fakes/waiting"; exec /bin/sleep "${1/7/1}"')
        fakes.codes(*(75, 75) * (where == "sleep"))
        process = fakes.start("tpu_pod.sh", *FLAGS, TPU="pod", ZONE="z", PAUSE="7")
        until((fakes.folder / "waiting").exists)
        process.send_signal(signal.SIGTERM)
        finish(process, 130, timeout=60)
        assert not any("sphere_jax.main" in command for command in self.ssh(fakes))


KUBECTL = """
case "$1 $2" in
  "get nodes") for i in 1 2 3 4; do echo node/$i; done ;;
  "get jobset") [[ $* == *terminalState* ]] || exit 1; cat "$fakes/state" ;;
  "get pods") cat "$fakes/ends" ;;
  "apply --filename=-") cat > "$fakes/manifest" ;;
esac
"""


class TestGke:
    GIVEN = {
        "JOB": "slerp", "IMAGE": "mine:tpu", "CLAIM": "shared", "TOPOLOGY": "4x4", "HOSTS": "4",
        "CHIPS": "4", "ACCELERATOR": "tpu-v5-lite-podslice",
    }  # fmt: skip

    @pytest.fixture(autouse=True)
    def kubectl(self, fakes):
        fakes.does("kubectl", KUBECTL)
        (fakes.folder / "state").write_text("Completed")

    def gke(self, fakes, *flags, code=0, **more):
        return run(fakes, "gke.sh", *flags, code=code, **self.GIVEN | more)

    def test_the_jobset(self, fakes):
        self.gke(fakes, *FLAGS, "--config.data.path=it's")
        found = yaml.safe_load((fakes.folder / "manifest").read_text())
        assert found["kind"] == "JobSet" and found["metadata"]["name"] == "slerp"
        job = found["spec"]["replicatedJobs"][0]["template"]["spec"]
        assert job["parallelism"] == job["completions"] == 4 and job["backoffLimit"] == 0
        pod = job["template"]["spec"]
        [container] = pod["containers"]
        assert container["args"] == [*FLAGS, "--config.data.path=it's"]
        assert container["resources"]["limits"] == {"google.com/tpu": 4}
        assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
        environment = {each["name"]: each["value"] for each in container["env"]}
        assert environment["JAX_COMPILATION_CACHE_DIR"] == "/shared/.compiled"
        assert environment["SPHERE_JAX_WAIT"] == "300"
        assert all(isinstance(value, str) for value in environment.values())
        # What failed or was refused is not repeated; what was preempted is.
        assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2]
        policy = found["spec"]["failurePolicy"]
        assert policy["rules"][0]["action"] == "FailJobSet" and policy["maxRestarts"] == 100

    def test_the_jobset_can_be_read_first(self, fakes):
        process = fakes.start("gke.sh", "--print", *FLAGS, **self.GIVEN)
        assert yaml.safe_load(finish(process, timeout=60)[0])["kind"] == "JobSet"
        assert fakes.calls("kubectl") == []

    @pytest.mark.parametrize(("ends", "code"), [("2\n75\n", 2), ("75\n1\n", 1), ("137\n\n", 75)])
    def test_how_it_failed_is_passed_on(self, fakes, ends, code):
        (fakes.folder / "state").write_text("Failed")
        (fakes.folder / "ends").write_text(ends)
        assert f"failed with exit code {code}" in self.gke(fakes, *FLAGS, code=code)

    def test_what_is_missing_is_refused(self, fakes):
        assert "set TOPOLOGY" in self.gke(fakes, *FLAGS, code=2, TOPOLOGY="")
        assert "has 4 nodes of tpu-v5-lite-podslice 4x4, not 8" in self.gke(
            fakes, *FLAGS, code=2, HOSTS="8"
        )
        self.gke(fakes, *FLAGS, HOSTS="8", AUTOSCALED="1")
        for what, words in {"crd": "has no JobSet", "pvc": "no claim shared"}.items():
            fakes.does("kubectl", f"[[ $2 == {what} ]] && exit 1\n{KUBECTL}")
            assert words in self.gke(fakes, *FLAGS, code=2)

    def test_a_signal_ends_the_jobset(self, fakes):
        (fakes.folder / "state").write_text("")
        process = fakes.start("gke.sh", *FLAGS, **self.GIVEN | {"POLL": "0.1"})
        until(lambda: any("apply" in call for call in fakes.calls("kubectl")))
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        finish(process, 130, timeout=60)
        assert ["kubectl", "delete", "jobset", "slerp", "--wait=true"] in fakes.calls("kubectl")

    def test_a_host_checks_before_it_runs(self, fakes):
        given = {"HOSTS": "4", "CHIPS": "4"}
        run(fakes, "in_container.sh", *FLAGS, **given)
        checks, command = fakes.calls("python")
        assert checks[2:6] == ["sphere_jax.preflight", "--hosts=4", "--devices_per_host=4",
                               "--platform=tpu"]  # fmt: skip
        assert command[2:] == ["sphere_jax.main", *FLAGS]
        fakes.codes(2)
        run(fakes, "in_container.sh", *FLAGS, code=2, **given)
        fakes.codes(0, "wait")
        process = fakes.start("in_container.sh", *FLAGS, **given)
        until((fakes.folder / "waiting").exists)
        process.send_signal(signal.SIGTERM)  # to the run itself, which replaces the script
        finish(process, 130, timeout=60)


UV = """
[[ $1 == venv ]] || exit 0
mkdir -p "${@: -1}/bin"; touch "${@: -1}/bin/python"; chmod +x "${@: -1}/bin/python"
"""


GCS = re.search(r'^gcs = \["(\S+)"\]', (ROOT / "pyproject.toml").read_text(), re.M)[1]


def test_python_is_brought_once(fakes, tmp_path):
    """By uv, whatever Python the host has; the packages are those of requirements.txt."""
    checkout = tmp_path / "checkout"
    (checkout / "launch").mkdir(parents=True)
    for name in ("launch/environment.sh", "requirements.txt"):
        shutil.copy(ROOT / name, checkout / name)
    pinned = re.search(r"^jax==(\S+)$", (ROOT / "requirements.txt").read_text(), re.M)[1]
    fakes.does("uv", UV)

    def bring(accelerator, code=0):
        finish(fakes.start(checkout / "launch/environment.sh", accelerator), code, timeout=60)

    for accelerator, package in (("tpu", "jax[tpu]"), ("gpu", "jax[cuda12]"), ("cpu", "jax")):
        bring(accelerator)
        venv, install = fakes.calls("uv")[-2:]
        assert venv[-3:] == ["--python", "3.12", f".venv-{accelerator}"]
        assert install[-1] == f"{package}=={pinned}" and "requirements.txt" in install
        assert (GCS in install) == (accelerator == "tpu")
    count = len(fakes.calls("uv"))
    bring("gpu")
    assert len(fakes.calls("uv")) == count
    with (checkout / "requirements.txt").open("a") as file:
        file.write("more==1\n")
    bring("gpu")
    assert len(fakes.calls("uv")) == count + 2
    bring("npu", code=2)


@pytest.mark.parametrize(("name", "extra"), [("gpu", "cuda12"), ("tpu", "tpu")])
def test_dockerfiles_pin_what_requirements_pin(name, extra):
    text = (ROOT / "launch" / f"Dockerfile.{name}").read_text()
    assert re.search(r"^FROM \S+:python3\.1[1-9]", text, re.M)
    assert f"\"jax[{extra}]==$(sed -n 's/^jax==//p' requirements.txt)\"" in text
    assert (f'"{GCS}"' in text) == (name == "tpu")
    for source in re.findall(r"^COPY (\S+) ", text, re.M):
        assert (ROOT / source).exists()


class TestLocalProcesses:
    def test_every_process_gets_its_number(self, fakes):
        fakes.does("python", 'echo "$SPHERE_JAX_PROCESS of $SPHERE_JAX_PROCESSES: $*" >&2')
        said = run(fakes, "local_processes.sh", "2", *FLAGS)
        for number in range(2):
            assert f"{number} of 2: -m sphere_jax.main {' '.join(FLAGS)}" in said

    @pytest.mark.parametrize(("does", "code"), [("exit 2", 2), ("kill -KILL $$", 137)])
    def test_the_code_of_the_one_that_fails_is_passed_on(self, fakes, does, code):
        fakes.does("python", f"if [[ $SPHERE_JAX_PROCESS == 1 ]]; then {does}; fi; sleep 1")
        run(fakes, "local_processes.sh", "2", *FLAGS, code=code)
