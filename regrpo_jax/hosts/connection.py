"""How the processes of a run find each other, before any of them touches a device; see `config.hosts`."""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from regrpo_jax.errors import UserError
from regrpo_jax.hosts import supervisor
from regrpo_jax.hosts.agreement import all_agree, told_by_first
from regrpo_jax.hosts.notes import Notes
from regrpo_jax.hosts.role import Role, role, take

COORDINATOR, PROCESSES, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_SHARED_SECONDS = 60.0  # a shared folder may show a new file to other hosts after a while
_ENDING_SECONDS = 30.0  # jax ends a process a little later than it takes another for dead
_SHUTDOWN_SECONDS = 900  # the first process writes the report, while others wait for it


def connect(hosts: ConfigDict, workdir: Path, identity: str) -> None:
    """Joins the other processes of the run.

    Args:
      hosts: `config.hosts`.
      workdir: of the run, a folder that all of them share.
      identity: of the configuration; that of all must be the same.
    Raises:
      UserError: the others cannot be found, were started with another configuration, or do not share the folder.
    """
    where = _address(hosts, os.environ) if hosts.kind == "plain" else {}
    jax.config.update("jax_enable_preemption_service", False)  # stops are agreed by `hosts.agreement`
    try:
        jax.distributed.initialize(
            **where,
            cluster_detection_method="deactivate" if where else None,
            initialization_timeout=int(hosts.wait),
            heartbeat_timeout_seconds=int(hosts.heartbeat),
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (ValueError, RuntimeError, OSError, KeyError) as error:
        raise UserError(_not_connected(hosts, where, error)) from error
    take(Role(jax.process_index(), jax.process_count(), patience=hosts.heartbeat + _ENDING_SECONDS))
    if not role().writes:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for the rest of the process: one tells what all would)
    start = told_by_first("start", secrets.token_hex(4))
    _check_shared(workdir, start)
    supervisor.report(role().index, role().count, start)
    all_agree("the configuration", identity, "start every process with the same --config and the same overrides")


def leave() -> None:
    """At a good end: waits for the others, because all of them write what is written last."""
    if not role().alone:
        jax.distributed.shutdown()


def _address(hosts: ConfigDict, environment: Mapping[str, str]) -> dict[str, Any]:
    """What is set, else what the environment says. UserError where neither says, or it cannot be."""
    coordinator = hosts.coordinator or environment.get(COORDINATOR, "")
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:/]+):\d{1,5}", coordinator):
        raise UserError(
            f"config.hosts.coordinator is {coordinator!r}; name where process 0 runs and a port that is free there, "
            f"such as '10.0.0.2:8476', or set {COORDINATOR}"
        )
    processes = hosts.processes or _whole_number(environment, PROCESSES, "config.hosts.processes")
    index = _whole_number(environment, INDEX, "config.hosts.index") if hosts.index is None else hosts.index
    if processes < 1 or not 0 <= index < processes:
        raise UserError(
            f"config.hosts.index is {index} of {processes} processes; number them from 0 to {max(processes - 1, 0)}"
        )
    return {"coordinator_address": coordinator, "num_processes": processes, "process_id": index}


def _whole_number(environment: Mapping[str, str], variable: str, field: str) -> int:
    text = environment.get(variable, "")
    if not re.fullmatch(r"\d+", text):
        raise UserError(f"{field} is not set, and {variable} is {text!r}; set one of them to a whole number")
    return int(text)


def _not_connected(hosts: ConfigDict, where: Mapping[str, object], error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    if not where:
        return (
            "config.hosts.kind is 'detect', and jax finds no Cloud TPU slice, Slurm step, Kubernetes job or Open MPI "
            f"run around it ({reason}); start it inside of one, or choose 'plain' with config.hosts.coordinator"
        )
    return (
        f"config.hosts: process {where['process_id']} of {where['num_processes']} did not meet the others at "
        f"{where['coordinator_address']} within {hosts.wait:g} s ({reason}); see that all of them are started and that "
        "they reach this address"
    )


def _check_shared(workdir: Path, start: str) -> None:
    """The first process makes the folder of this start; the others must see it."""
    notes = Notes(workdir, start)
    if role().writes:
        try:
            notes.begin()
        except OSError as error:
            raise UserError(
                f"--workdir={workdir}: cannot be written ({error.strerror}); choose another folder"
            ) from error
    told_by_first("folder", "made")
    last = time.monotonic() + _SHARED_SECONDS
    while not notes.folder.exists():
        if time.monotonic() > last:
            raise UserError(
                f"--workdir={workdir}: process {role().index} of {role().count} does not see there what process 0 "
                "writes; name a folder that all hosts share, such as one on NFS or Filestore"
            )
        time.sleep(0.2)
