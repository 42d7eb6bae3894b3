"""Bundles on Ray Serve: deployed, proven over HTTP, drained, taken away."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import DeviceUnavailable, LaunchError
from polyhead.serving.logs import Lines
from polyhead.serving.rayserve import cluster
from polyhead.serving.rayserve.plan import RayAddresses, RayPlan, bindable
from polyhead.serving.rayserve.pulse import Pulse
from polyhead.serving.rayserve.site import Site
from polyhead.serving.raystart import last_line
from polyhead.serving.served import Served
from polyhead.serving.side.roster import in_order

if TYPE_CHECKING:
    from polyhead.serving.torchserve.service import Plan

__all__ = ["RayService", "serve_on_ray"]

APPLICATION = "polyhead"  # of the HTTP side; each model has one of its own
SITE, NAMESPACE = "polyhead-site", "polyhead"
SITE_THREADS = 8  # questions about the models that are answered at a time
POLL_SECONDS = 0.1
STOPPED = "stopped before the server was ready"
GRACE_SECONDS = 10.0  # for Ray to take away what has drained
LOG, METRICS = "log", "metrics"  # in the folder that replicas on this machine share with us


class RayService:
    """A server on Ray Serve.

    Args:
        bundles: opened, each of another name or version; of each name the highest version is the default.
        plan: how to run.
        log: told every line that replicas on this machine log.

    Raises:
        LaunchError: two bundles are one model, or the port is taken.
        RuntimeUnavailable: Ray Serve is not installed.
    """

    def __init__(self, bundles: Sequence[Bundle], plan: RayPlan, log: Callable[[str], None] = lambda _: None) -> None:
        titles = [bundle.title for bundle in bundles]
        twice = {title for title in titles if titles.count(title) > 1}
        if twice:
            raise LaunchError(f"model {min(twice)} was given twice: a name and version can be served once")
        self.bundles, self.plan = in_order(bundles, plan.service.default_titles), plan
        self._log = Lines(log) if plan.settings.log_format == "json" else log
        self._ray, self._serve = cluster.import_ray(plan.address)
        self.addresses = RayAddresses(plan.host, bindable(plan.host, plan.port))
        self._stack = ExitStack()
        self._site: Any = None
        self._pulse: Pulse | None = None
        self._deployed: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where clients come to, as this machine reaches it."""
        return self.addresses.url

    @property
    def engine(self) -> str:
        """What serves, in words."""
        where = "on this machine" if self._local else f"at {self.plan.address}"
        return f"Ray Serve {self._ray.__version__} {where}"

    @property
    def _local(self) -> bool:
        return self.plan.address == cluster.LOCAL

    def start(self, cancelled: Callable[[], bool] = lambda: False) -> list[Served]:
        """Deploy, and wait until every model has answered its golden samples over HTTP.

        Args:
            cancelled: asked while waiting; where it says yes, the start is given up.

        Raises:
            LaunchError: a model could not be loaded or placed, or time ran out; nothing is left running.
        """
        plan = self.plan
        cores = plan.scaling.most(plan.settings) * plan.scaling.threads(plan.settings) * len(self.bundles)
        try:
            folder = self._shared_folder() if self._local else None
            self._stack.enter_context(cluster.connected(self._ray, plan.address, cores))
            self._stack.callback(self._take_away)
            self._deploy(folder)
            self._wait(cancelled)
            served = [self._prove(bundle, cancelled) for bundle in self.bundles]
            self._got(self._site.started.remote(), cancelled)
            self._pulse = Pulse(self._ray, self._site)
        except self._ray.exceptions.RayError as error:
            self.stop()
            raise LaunchError(f"Ray failed while the server started: {last_line(error)}") from None
        except BaseException:
            self.stop()
            raise
        return served

    def _shared_folder(self) -> Path:
        """Where replicas on this machine count, and a pipe for what they log.

        Ray would mix their lines with words of its own, and print all of it to our output.
        """
        folder = Path(tempfile.mkdtemp(prefix="polyhead-ray-"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        (folder / METRICS).mkdir()
        os.mkfifo(folder / LOG, 0o600)
        lines = os.fdopen(os.open(folder / LOG, os.O_RDWR), encoding="utf-8", errors="replace")  # never at its end
        threading.Thread(target=self._pump, args=(lines,), daemon=True).start()
        return folder

    def _pump(self, lines: IO[str]) -> None:
        for line in lines:
            self._log(line.rstrip("\n"))

    def _deploy(self, folder: Path | None) -> None:
        # Here: this module imports Ray, which is to be told beforehand to stay on the loopback.
        from polyhead.serving.rayserve import application as apps

        plan, settings = self.plan, self.plan.settings
        self._site = self._placed(None if folder is None else str(folder / METRICS))
        logs = {"log_level": "ERROR", "enable_access_log": False, "encoding": settings.log_format.upper()}
        # The HTTP side says itself when it has waited long enough: Ray's own answer would be text of another status.
        where = {"host": plan.host, "port": self.addresses.inference, "request_timeout_s": None}
        self._serve.start(proxy_location="EveryNode", http_options=where, logging_config=logs)
        drain = max(1.0, plan.service.drain_timeout - plan.service.drain_delay)
        placing = apps.Placing(self._gpu(), None if folder is None else str(folder), drain)
        for bundle in self.bundles:
            app = apps.model_application(bundle, settings, plan.scaling, placing)
            self._run(apps.application_name(bundle), app, None, logs)
        seconds = float(settings.response_timeout)
        http = apps.http_application(self.bundles, drain, (SITE, NAMESPACE), plan.max_body_bytes, seconds)
        self._run(APPLICATION, http, "/", logs)

    def _placed(self, metrics: str | None) -> Any:
        """The site, on this machine: it reaches HTTP by an address of it, and reads the bundles here.

        Raises:
            LaunchError: the cluster has one already.
        """
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        here = strategies.NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        options = {"name": SITE, "namespace": NAMESPACE, "num_cpus": 0, "max_concurrency": SITE_THREADS}
        site, plan = self._ray.remote(Site).options(**options, scheduling_strategy=here), self.plan
        about = plan.settings.model_dump(mode="json")
        try:
            return site.remote(self.url, about, plan.service.probe_interval, plan.console, metrics)
        except ValueError:  # of a name that is taken
            raise LaunchError(
                "another polyhead serve runs on this cluster: stop it first, or use another cluster"
            ) from None

    def _run(self, name: str, application: Any, route: str | None, logs: dict[str, Any]) -> None:
        target = self._serve.RunTarget(application, name=name, route_prefix=route, logging_config=logs)
        self._deployed.append(name)
        self._serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)

    def _gpu(self) -> bool:
        """Whether replicas get a GPU each."""
        there, wanted = self._ray.cluster_resources().get("GPU", 0), self.plan.settings.device
        if wanted.startswith("cuda:"):
            raise LaunchError(f"device {wanted}: Ray gives each replica a GPU of its choice: say cuda")
        if wanted == "cuda" and not there:
            raise DeviceUnavailable("device 'cuda' is not there: Ray has no GPU: use --device cpu, or another cluster")
        return bool(wanted != "cpu" and there > 0)

    def _wait(self, cancelled: Callable[[], bool]) -> None:
        """Until every replica has loaded."""
        seconds = self.plan.settings.startup_timeout
        deadline = time.monotonic() + seconds
        while True:
            if cancelled():
                raise LaunchError(STOPPED)
            there = self._serve.status().applications
            found = [there.get(name) for name in self._deployed]
            for application in found:
                if application is not None and application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                    raise LaunchError(reason(application))
            if all(application is not None and application.status == "RUNNING" for application in found):
                return
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"the models were not ready after {seconds} s (polyhead_startup_timeout): "
                    "has the cluster room for the replicas? ray status tells"
                )
            time.sleep(POLL_SECONDS)

    def _prove(self, bundle: Bundle, cancelled: Callable[[], bool]) -> Served:
        from polyhead.serving.rayserve.application import MODEL, application_name

        if cancelled():
            raise LaunchError(STOPPED)
        handle = self._serve.get_deployment_handle(MODEL, application_name(bundle))
        try:
            told = handle.about.remote().result(timeout_s=self.plan.settings.response_timeout)
        except TimeoutError:
            raise LaunchError(f"{bundle.title} has loaded and gives no answer: ray status tells") from None
        about: dict[str, Any] = {name: str(told[name]) for name in ("graph", "runtime", "device", "why")}
        about["workers"] = self.plan.scaling.replicas_at_first(self.plan.settings)
        about["threads"] = self.plan.scaling.threads(self.plan.settings)
        wrong = self._got(self._site.prove.remote(str(bundle.folder.resolve()), about), cancelled)
        if wrong:
            raise LaunchError(wrong)
        return Served(bundle, **about)

    def _got(self, answer: Any, cancelled: Callable[[], bool]) -> Any:
        """What an actor answers; where it hangs, we still listen to whoever wants us to stop."""
        deadline = time.monotonic() + self.plan.settings.startup_timeout
        while not self._ray.wait([answer], timeout=POLL_SECONDS)[0]:
            if cancelled():
                raise LaunchError(STOPPED)
            if time.monotonic() > deadline:
                raise LaunchError("the Ray cluster gives no answer (polyhead_startup_timeout): ray status tells")
        return self._ray.get(answer)

    def fault(self) -> str | None:
        """What has ended by itself, in words; None where nothing has. It never waits."""
        return None if self._pulse is None else self._pulse.fault()

    def drain(self, hurry: Callable[[], bool] = lambda: False) -> bool:
        """Say that nothing is ready; then have HTTP take no more requests, and answer those that it took.

        Args:
            hurry: asked while waiting; where it says yes, what is not answered yet is given up.

        Returns:
            Whether everything was answered. A cluster that does not end in time, or is gone itself, is not waited for.
        """
        service = self.plan.service
        done = threading.Event()

        def end() -> None:
            with cluster.gone_is_done(self._ray):
                self._ray.get(self._site.drain.remote())
                time.sleep(service.drain_delay)
                self._serve.get_app_handle(APPLICATION).close.remote().result()
                done.set()

        threading.Thread(target=end, daemon=True).start()
        deadline = time.monotonic() + service.drain_timeout
        while not hurry() and time.monotonic() < deadline and not done.wait(POLL_SECONDS):
            pass
        return done.is_set()

    def _take_away(self) -> None:
        """What is deployed, at once; of a cluster of our own, everything."""
        ending = threading.Thread(target=self._remove, daemon=True)
        ending.start()
        ending.join(GRACE_SECONDS)

    def _remove(self) -> None:
        with cluster.gone_is_done(self._ray):
            if self._local:
                self._serve.shutdown()
                return
            for name in reversed(self._deployed):
                self._serve.delete(name, _blocking=False)
            if self._site is not None:
                self._ray.kill(self._site)

    def stop(self) -> None:
        """Stop everything at once, and leave nothing behind. Safe to call again."""
        with cluster.hushed():  # Ray has a word about every actor that ends
            self._stack.close()


def serve_on_ray(
    bundles: Sequence[Bundle],
    plan: Plan,
    address: str | None,
    replicas: Mapping[str, int | None],
    log: Callable[[str], None],
) -> RayService:
    """A server on Ray Serve in the place of one on TorchServe; arguments as of `RayPlan.over` and of `RayService`.

    Raises:
        LaunchError: two settings contradict each other, two bundles are one model, or the port is taken.
        RuntimeUnavailable: Ray Serve is not installed.
    """
    return RayService(bundles, RayPlan.over(plan, address, replicas), log)


def reason(application: Any) -> str:
    """Why a model could not be loaded: the last line of what its replica raised."""
    messages = [str(deployment.message) for deployment in application.deployments.values()]
    for message in [*messages, str(application.message)]:
        raised = [line.strip() for line in message.splitlines() if line.startswith(("polyhead.", "ray.exceptions."))]
        if raised:
            return raised[-1].partition(": ")[2] or raised[-1]
    return " ".join(str(application.message).split())
