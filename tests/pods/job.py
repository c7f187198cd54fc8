"""A job of several pods on one network, and what befalls them."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import time

import yaml

from . import template

_numbers = itertools.count()


class Job:
    """Pods with names of their own, that share a volume. Leaving the block removes them.

    Args:
      podman: Podman.
      manifest: The Job, as kustomize renders it, or as JobSet makes it.
      image: The image's name.
      volume: The folder that is their volume; one for each, if it is a list.
      workers: How many pods.
      arguments: More arguments for the program.
      variables: {index: more variables}; None takes one away.
      indices: Which pods to start. Default: all.
      host: A host name that is none of the Job's.
    """

    def __init__(
        self,
        podman,
        manifest,
        image,
        volume,
        *,
        workers=3,
        arguments=(),
        variables=None,
        indices=None,
        host=None,
    ):
        self._podman = podman
        self._number = next(_numbers)
        self._service = manifest["spec"]["template"]["spec"]["subdomain"]
        self._worker = manifest["spec"]["template"]["spec"]["containers"][0]["name"]
        self._network = f"net-{os.getpid()}-{self._number}"
        volumes = volume if isinstance(volume, list) else [volume] * workers
        self._pods = {
            index: template.pod(
                manifest,
                index,
                image=image,
                volume=volumes[min(index, len(volumes) - 1)],
                workers=workers,
                arguments=arguments,
                variables=(variables or {}).get(index),
                host=host,
            )
            for index in (range(workers) if indices is None else indices)
        }

    def __enter__(self):
        self._podman("network", "create", self._network)
        for index, pod in self._pods.items():
            host = pod["spec"]["hostname"]
            # A job that is still there has pods of the same names.
            pod["metadata"]["name"] = f"{host}-start{self._number}"
            path = self._podman.folder / f"pod-{self._number}-{index}.yaml"
            path.write_text(yaml.safe_dump(pod))
            alias = f"{self._network}:alias={host}.{self._service}"
            self._podman("kube", "play", "--network", alias, path, timeout=400)
        return self

    def __exit__(self, *_):
        for pod in self._pods.values():
            self._podman("pod", "rm", "--force", "--time", 0, pod["metadata"]["name"], check=False)
        self._podman("network", "rm", "--force", self._network, check=False)

    def container(self, index):
        """Returns the name of the worker's container."""
        return f"{self._pods[index]['metadata']['name']}-{self._worker}"

    def log(self, index):
        """Returns what the worker has written so far."""
        done = subprocess.run(
            ["podman", "logs", self.container(index)],
            env=self._podman._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        return done.stdout

    def logs(self):
        """Returns the ends of all logs, for messages."""
        return "\n".join(f"=== pod {i}\n{self.log(i)[-3000:]}" for i in self._pods)

    def wait_until(self, condition, what, seconds=120):
        """Waits until `condition` is true; fails if it is not in time, or a pod has ended."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what} did not come in {seconds} s\n{self.logs()}"
            time.sleep(0.1)

    def ends(self, seconds=120):
        """Waits until all have ended; returns the exit codes."""
        end = time.monotonic() + seconds
        codes = []
        for index in self._pods:
            left = max(1.0, end - time.monotonic())
            try:
                codes.append(int(self._podman("wait", self.container(index), timeout=left)))
            except subprocess.TimeoutExpired:
                raise AssertionError(
                    f"pod {index} has not ended in {seconds} s\n{self.logs()}"
                ) from None
        return codes

    def kill(self, index):
        """Kills a pod's worker, as `kubectl delete pod --force` does."""
        self._podman("kill", self.container(index))

    def stop(self, index, grace):
        """Ends a pod: SIGTERM, and SIGKILL after `grace` seconds. Does not wait."""
        return subprocess.Popen(
            ["podman", "stop", "--time", str(grace), self.container(index)],
            env=self._podman._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def cut(self, index, *, off):
        """Cuts a pod off from the network, or connects it again."""
        text = self._podman("inspect", "--format", "{{.State.Pid}}", self.container(index))
        state = "down" if off else "up"
        subprocess.run(
            ["nsenter", "--target", text.strip(), "--net", "ip", "link", "set", "eth0", state],
            check=True,
            timeout=300,
        )

    def go_on(self, index):
        """Lets all processes of a pod go on that a fault has stopped."""
        for line in self._podman("top", self.container(index), "hpid", "state").splitlines()[1:]:
            number, state = line.split()
            if state == "T":
                os.kill(int(number), signal.SIGCONT)

    def is_stopped(self, index):
        """Returns whether a fault has stopped the pod's program."""
        return " T" in self._podman("top", self.container(index), "hpid", "state", check=False)

    def started_at(self, index):
        """Returns at which step the worker has started."""
        found = re.search(r"starts at step (\d+)", self.log(index))
        return int(found[1]) if found else None
