"""What is checked on every host before a run starts: each process reports, the first compares.

No check stops the others: all faults of all hosts are printed at once.
"""

import dataclasses
import hashlib
import json
import os
import platform
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import jax

from sphere_jax.common.cores import usable_cores
from sphere_jax.common.errors import UserError
from sphere_jax.common.files import free_bytes, in_bytes, make_folder
from sphere_jax.common.processes import barrier, gathered_texts
from sphere_jax.common.progress import log
from sphere_jax.common.versions import versions

SEEN = 10.0  # seconds in which a file of one host must be seen by the others


@dataclasses.dataclass(frozen=True)
class Expected:
    """What the launcher has asked for; 0 and "" where it does not say."""

    hosts: int = 0
    devices_per_host: int = 0
    platform: str = ""


def check_hosts(expected: Expected, config: str, overrides: list[str], folder: Path | None) -> None:
    """Prints what was found, in words. Every process of the job must call it.

    config: a file, with `overrides` of its values; "" checks no config and no data.
    folder: where the command will write, if it will.

    Raises UserError, in every process, if anything is wrong anywhere.
    """
    report = {
        "host": socket.gethostname(),
        "platform": jax.default_backend(),
        "kind": jax.local_devices()[0].device_kind,
        "devices": jax.local_device_count(),
        "cores": usable_cores(),
        "versions": _found(_versions),
        "data": _found(lambda: _data(config, overrides)) if config else {},
    }
    written = _written(folder) if folder else []
    reports = [json.loads(text) for text in gathered_texts(json.dumps(report))]
    faults = [*_hosts(reports, expected), *_versions_differ(reports), *_data_differ(reports)]
    for line in (*_lines(reports), *_written_lines(folder, written)):
        log(f"preflight: {line}")
    told = zip(reports, written, strict=True) if folder else ()
    faults += [f"{report['host']}: {fault}" for report, fault in told if fault]
    for fault in faults:
        log(f"preflight: WRONG: {fault}")
    if faults:
        raise UserError(
            f"{len(faults)} {'check' if len(faults) == 1 else 'checks'} failed, the first: "
            f"{faults[0]}"
        )
    log("preflight: all is well")


def _found(read: Callable[[], dict]) -> dict:
    """What `read` finds, or {"wrong": why it cannot}."""
    try:
        return read()
    except UserError as error:
        return {"wrong": str(error)}
    except Exception as error:  # of this host alone, perhaps: the others' reports count too
        return {"wrong": f"{type(error).__name__}: {error}"}


def _versions() -> dict[str, str]:
    return {"Python": platform.python_version()} | versions()


def _data(config: str, overrides: list[str]) -> dict:
    """Digest of the config, fingerprint and number of the training examples."""
    from sphere_jax.config.config_files import load_config
    from sphere_jax.config.reading import to_dict
    from sphere_jax.data.class_names import with_classes_counted
    from sphere_jax.distribution.mesh import configured_mesh
    from sphere_jax.runs.network_files import check_given
    from sphere_jax.runs.records import check_weights_exist
    from sphere_jax.runs.run import Run
    from sphere_jax.runs.stages import check_batch
    from sphere_jax.training.checkpoint_folder import open_folder

    read = with_classes_counted(load_config(config, overrides))
    check_weights_exist(read)
    run = Run(read, Path(), configured_mesh(read.mesh))
    if read.checkpoints.store:
        open_folder(Path("preflight"), read.checkpoints.store)
    count = len(run.split.train)
    for name, method in run.methods.items():
        check_given(method.files())
        check_batch(read, run.mesh, name, count)
    text = json.dumps(to_dict(read), sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return {"config": digest, "examples": count, "fingerprint": run.data_fingerprint}


def _hosts(reports: list[dict], expected: Expected) -> list[str]:
    faults = []
    hosts = len({report["host"] for report in reports})
    if expected.hosts and hosts != expected.hosts:
        faults.append(f"{hosts} hosts have answered, {expected.hosts} are expected")
    per_host = Counter()
    for report in reports:
        per_host[report["host"]] += report["devices"]
        if expected.platform and report["platform"] != expected.platform:
            faults.append(
                f"{report['host']}: JAX sees {report['platform'].upper()} devices alone, not "
                f"{expected.platform.upper()}; install jax[{_extra(expected.platform)}] and check "
                "the driver"
            )
    for host, devices in per_host.items():
        if expected.devices_per_host and devices != expected.devices_per_host:
            faults.append(
                f"{host}: its processes use {devices} devices, not {expected.devices_per_host}"
            )
    if not expected.devices_per_host and len(set(per_host.values())) > 1:
        counts = ", ".join(f"{host} {devices}" for host, devices in per_host.items())
        faults.append(f"the hosts use different numbers of devices: {counts}")
    if len(kinds := {report["kind"] for report in reports}) > 1:
        faults.append(f"the hosts have devices of several kinds: {', '.join(sorted(kinds))}")
    return faults


def _extra(name: str) -> str:
    return {"gpu": "cuda12"}.get(name, name)


def _versions_differ(reports: list[dict]) -> list[str]:
    faults = [
        f"{report['host']}: {report['versions']['wrong']}"
        for report in reports
        if "wrong" in report["versions"]
    ]
    sound = [report for report in reports if "wrong" not in report["versions"]]
    for name in sound[0]["versions"] if sound else ():
        usual = Counter(report["versions"].get(name) for report in sound).most_common(1)[0][0]
        faults += [
            f"{report['host']}: has {name} {report['versions'].get(name)}, other hosts {usual}; "
            "install the same everywhere"
            for report in sound
            if report["versions"].get(name) != usual
        ]
    return faults


def _data_differ(reports: list[dict]) -> list[str]:
    faults = [
        f"{report['host']}: {report['data']['wrong']}"
        for report in reports
        if "wrong" in report["data"]
    ]
    sound = [report for report in reports if report["data"] and "wrong" not in report["data"]]
    words = {"config": "another config", "fingerprint": "other data"}
    for key, what in words.items():
        faults += [
            f"{report['host']}: reads {what} than {sound[0]['host']}; give every host the same"
            for report in sound
            if report["data"][key] != sound[0]["data"][key]
        ]
    return faults


def _lines(reports: list[dict]) -> list[str]:
    """What was found, in words."""
    first, hosts = reports[0], len({report["host"] for report in reports})
    devices = sum(report["devices"] for report in reports)
    lines = [
        f"{hosts} {'host' if hosts == 1 else 'hosts'}, {len(reports)} "
        f"{'process' if len(reports) == 1 else 'processes'}, {devices} x {first['kind']}; "
        f"{min(report['cores'] for report in reports)} cores or more for each process"
    ]
    if "wrong" not in first["versions"]:
        named = ("Python", "jax", "jaxlib", "flax", "sphere_jax")
        lines.append(", ".join(f"{name} {first['versions'][name]}" for name in named))
    if "examples" in first["data"]:
        lines.append(f"data: {first['data']['examples']:,} training examples")
    return lines


def _written_lines(folder: Path | None, written: list[str]) -> list[str]:
    if folder is None or any(written):
        return []
    return [f"{folder}: every process can write there, {in_bytes(free_bytes(folder))} are free"]


def _written(folder: Path) -> list[str]:
    """What is wrong with writing to `folder`, for every process in order; "" if nothing is.

    Each writes a file there, and must see those of all others: checkpoints are written by all.
    """
    fault = ""
    try:
        make_folder(folder)
    except UserError as error:
        fault = str(error)
    names = [
        f".preflight-{name}" for name in gathered_texts(f"{socket.gethostname()}-{os.getpid()}")
    ]
    own = folder / names[jax.process_index()]
    if not fault:
        try:
            own.write_text("")
        except OSError as error:
            fault = f"cannot write to {folder} ({error.strerror})"
    barrier("every process has written")
    deadline = time.monotonic() + SEEN
    while not fault and (missing := [name for name in names if not (folder / name).exists()]):
        if time.monotonic() > deadline:
            fault = (
                f"does not see in {folder} what {missing[0].removeprefix('.preflight-')} wrote "
                "there; name a folder that all hosts share"
            )
        os.listdir(folder)  # what a network file system remembers of the folder is read again
        time.sleep(0.2)
    faults = gathered_texts(fault)
    with suppress(OSError):  # it could not be written
        own.unlink()
    return faults
