# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The simulator on real sockets: one loopback port for the API, another for the pictures' host."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from pictory_provider.simulator import control, edge, painting, settings, shapes
from pictory_provider.simulator.account import Account
from pictory_provider.simulator.background import MAX_REFERENCE_BYTES, Background
from pictory_provider.simulator.endpoints import Endpoints
from pictory_provider.simulator.faults import FaultScript, ScriptedFault
from pictory_provider.simulator.misbehaving import misbehave
from pictory_provider.simulator.replies import LoggedRequest, logged, refused, reply

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext

    from pictory_provider.simulator.endpoints import Answer

HOST = "127.0.0.1"
PREFIX = "/pictoryapis"
DEFAULT_KEY = "pictai_simulator"
_REFERENCE_BODY = {"prompt": "A sample reference image", "model": "simulator", "aspectRatio": "1:1"}


class Simulator:
    """A local Pictory, as a context manager.

    :param seconds: how long a job runs.
    :param credits_limit: AI credits of the subscription.
    :param api_key: the only key that is accepted.
    :param port: of the API; 0 chooses a free one.
    :param images_port: of the pictures' host; 0 chooses a free one.
    :param ssl_context: serves both over TLS.
    :param clock: returns epoch seconds, for jobs, ledger and the header ``Date``.
    """

    def __init__(
        self,
        *,
        seconds: float = 5.0,
        credits_limit: float = 22_000,
        api_key: str = DEFAULT_KEY,
        port: int = 0,
        images_port: int = 0,
        ssl_context: SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        painting.check_installed()
        self.account = Account(seconds=seconds, credits_limit=credits_limit, clock=clock)
        self.api_key = api_key
        self.requests: list[LoggedRequest] = []
        self.shapes = {name: choices[0] for name, choices in shapes.SHAPES.items()}
        self._faults = FaultScript()
        self._ssl = ssl_context
        self._ports = [port, images_port]
        self._pictures: dict[str, bytes] = {}
        self._background = Background(clock)
        self._endpoints = Endpoints(self.account, self.shapes, self._background, lambda: self.images_url)
        self._runners: list[web.AppRunner] = []
        self._started = threading.Event()
        self._failure: BaseException | None = None

    # For tests ---------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="pictory-simulator", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def base_url(self) -> str:
        """The host of a connection to this simulator."""
        return f"{self._origin(0)}{PREFIX}"

    @property
    def images_url(self) -> str:
        """The origin of the pictures' host."""
        return self._origin(1)

    @property
    def reference_image_url(self) -> str:
        """The URL of a sample reference image."""
        return f"{self.images_url}/samples/reference.png"

    @property
    def submissions(self) -> list[LoggedRequest]:
        """The received image requests, whatever their outcome."""
        return [r for r in self.requests if r.method == "POST" and r.path == "/v1/aistudio/images"]

    @property
    def uploads(self) -> list[LoggedRequest]:
        """The received uploads of reference images, whatever their outcome."""
        return [r for r in self.requests if r.method == "PUT" and r.host == "images"]

    @property
    def polls(self) -> list[LoggedRequest]:
        """The received polls of single jobs."""
        return [r for r in self.requests if r.method == "GET" and r.path.startswith("/v1/jobs/")]

    def connection(self, **extra: Any) -> dict[str, Any]:
        """Return an Airflow connection to this simulator."""
        return {"conn_type": "pictory", "host": self.base_url, "password": self.api_key, "extra": extra}

    def connection_json(self, **extra: Any) -> str:
        """Return the value for an environment variable such as ``AIRFLOW_CONN_PICTORY_DEFAULT``."""
        return json.dumps(self.connection(**extra))

    def plan(self, fate: str = "completed", **options: Any) -> None:
        """Set the outcome of the next job (:meth:`Account.plan`)."""
        self.account.plan(fate, **options)

    def script(self, place: str, fault: str, *, times: int = 1, **options: Any) -> None:
        """Script a fault for the next requests to a place.

        :param place: one of :data:`PLACES`.
        :param fault: one of :data:`FAULTS`, which describes its options.
        :param times: how many requests it affects; negative means all.
        :param options: any fault takes ``every=3``, and then affects only every third request.
        """
        self._faults.add(ScriptedFault(place, fault, times, options))

    def clear_faults(self) -> None:
        """Remove all scripted faults."""
        self._faults.waiting.clear()

    def shape(self, name: str, choice: str) -> None:
        """Choose a shape that the documentation leaves open, from :data:`SHAPES`."""
        if choice not in shapes.SHAPES.get(name, ()):
            raise ValueError(f"no such shape: {name}={choice}; there are {shapes.SHAPES}")
        self.shapes[name] = choice

    def set(self, **values: float) -> None:
        """Set values of :data:`SETTINGS`."""
        self.account.settings.update({name: settings.checked(name, value) for name, value in values.items()})
        self.account.ledger.catch_up(self.account.clock())  # others start buying now
        if not self._started.is_set():
            return
        if threading.current_thread() is self._thread:  # called over HTTP
            self._opening = self._loop.create_task(self._open_images())
        else:
            asyncio.run_coroutine_threadsafe(self._open_images(), self._loop).result()

    def enter(self, **fields: Any) -> None:
        """Add a row to the ledger (:meth:`Ledger.enter`).

        ::

            pictory.enter(type="credit", amount=22_000, source="Monthly Reset")
            pictory.enter(type="credit", amount=0.6, source="Text-to-Image")  # a refund
            pictory.enter(type="adjustment", amount=5)
        """
        self.account.ledger.enter(self.account.clock(), **fields)

    def reset(self) -> None:
        """Forget jobs, charges, faults, shapes, settings and requests. The ports stay.

        It first waits for background work of earlier jobs, so that this work leaves no trace afterwards.
        """
        asyncio.run_coroutine_threadsafe(self.forget(), self._loop).result()

    async def forget(self) -> None:
        """Do the same as :meth:`reset` on the simulator's event loop."""
        await self._background.settle()
        self.account.reset()
        await self._open_images()
        self.clear_faults()
        self._pictures.clear()
        self._endpoints.uploads.files.clear()
        self.requests.clear()
        self.shapes.update({name: choices[0] for name, choices in shapes.SHAPES.items()})

    # Serving -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._runners.clear()
        for index, routes in enumerate((self._api_routes(), self._image_routes())):
            app = web.Application(client_max_size=2 * MAX_REFERENCE_BYTES)
            app.add_routes(routes)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
            await runner.setup()
            self._runners.append(runner)
            await self._listen(index)
            self._ports[index] = runner.addresses[0][1]
        await self._open_images()
        self._started.set()
        await self._stop.wait()
        self._background.cancel()
        for runner in self._runners:
            await runner.cleanup()

    async def _listen(self, index: int) -> None:
        await web.TCPSite(self._runners[index], HOST, self._ports[index], ssl_context=self._ssl).start()

    async def _open_images(self) -> None:
        """Open or close the pictures' host, according to the setting ``images_away``."""
        runner, is_away = self._runners[1], bool(self.account.settings["images_away"])
        if not is_away and not runner.sites:
            await self._listen(1)
        elif is_away:
            for site in list(runner.sites):
                await site.stop()
            for connection in runner.server.connections if runner.server else ():
                connection.force_close()
                if connection.transport is not None:
                    connection.transport.abort()

    def _origin(self, index: int) -> str:
        return f"{'https' if self._ssl else 'http'}://{HOST}:{self._ports[index]}"

    def _api_routes(self) -> list[web.RouteDef]:
        def documented(method: str, path: str, place: str, answer: Answer, *query: str) -> web.RouteDef:
            async def handle(request: web.Request) -> web.StreamResponse:
                return await self._handle(request, place, answer, query)

            return web.route(method, PREFIX + path, handle)

        answers = self._endpoints
        return [
            documented("POST", "/v1/aistudio/images", "submit", answers.submit),
            documented("GET", "/v1/aistudio/images", "images", answers.images, "nextPageKey"),
            documented("POST", "/v1/media/generateurl", "upload-url", answers.upload_url),
            documented("GET", "/v1/jobs", "jobs", answers.jobs, "nextPageKey"),
            documented("GET", "/v1/jobs/{job_id}", "job", answers.job),
            documented("DELETE", "/v1/jobs/{job_id}/clean", "clean", answers.clean),
            documented("GET", "/v1/quota", "quota", answers.quota),
            documented("GET", "/v1/aicredits/usage", "usage", answers.usage, "year", "month"),
            *control.routes(self),
            web.route("*", "/{rest:.*}", partial(self._unknown, "api")),
        ]

    def _image_routes(self) -> list[web.RouteDef]:
        return [
            web.get("/images/user/{user}/{name}.png", self._picture),
            web.get("/samples/reference.png", self._reference),
            web.put("/public/teams/{rest:.*}", self._upload),
            web.get("/public/teams/{rest:.*}", self._uploaded),
            web.route("*", "/{rest:.*}", partial(self._unknown, "images")),
        ]

    async def _handle(
        self, request: web.Request, place: str, answer: Answer, query: tuple[str, ...]
    ) -> web.StreamResponse:
        entry = await self._logged(request, "api", request.path.removeprefix(PREFIX))
        carry_out = partial(self._answer, request, entry, answer, query)
        response: web.StreamResponse
        if refusal := edge.refusal(request.headers, self.shapes):
            response = reply(entry, refusal)
        elif fault := self._faults.take(place):
            entry.fault = fault.name
            response = await misbehave(request, entry, fault, carry_out, self.base_url)
        else:
            response = reply(entry, carry_out())
        if not response.prepared:
            response.headers.update(edge.limit_headers(self.requests, self.shapes))
            response.headers["Date"] = formatdate(self.account.clock(), usegmt=True)
            if isinstance(response, web.Response) and isinstance(response.body, bytes):
                response.body = response.body.ljust(int(self.account.settings["reply_bytes"]))
        return response

    def _answer(
        self, request: web.Request, entry: LoggedRequest, answer: Answer, query: tuple[str, ...]
    ) -> shapes.Reply:
        if request.headers.get("Authorization") != self.api_key:
            return shapes.unauthorized()
        if unknown := set(request.query) - set(query):
            return refused(400, f"no documented query parameter: {', '.join(sorted(unknown))}")
        return answer(request, entry)

    async def _unknown(self, host: str, request: web.Request) -> web.StreamResponse:
        entry = await self._logged(request, host, request.path)
        return reply(entry, refused(404, f"no documented endpoint: {request.method} {request.path}"))

    # The pictures' host ------------------------------------------------------------------------------

    async def _picture(self, request: web.Request) -> web.StreamResponse:
        entry = await self._logged(request, "images", request.path)
        if "Authorization" in request.headers:
            return reply(entry, refused(400, "this host does not accept an Authorization header"))
        name = request.match_info["name"]
        job = next((j for j in self.account.jobs.values() if j.image_id == name), None)
        if job is None or not self._endpoints.serves(job, request.query.get("Expires")):
            return reply(entry, refused(403, "AccessDenied"))
        if name not in self._pictures:
            self._pictures[name] = await asyncio.to_thread(
                painting.paint, job.body, job.size, job.reference, job.take
            )
        content = self._pictures[name]
        if self.shapes["mark"] != "none":
            content = painting.marked(content, self.shapes["mark"])
        fault = self._faults.take("picture")
        if fault:
            entry.fault = fault.name
            if fault.name == "wrong-size":
                content = await asyncio.to_thread(painting.paint, job.body, (640, 640))
            elif fault.name in ("jpeg", "webp"):
                content = await asyncio.to_thread(painting.as_kind, content, fault.name)
            else:
                return await misbehave(request, entry, fault, lambda: (200, content), self.base_url)
        return reply(entry, (200, content))

    async def _reference(self, request: web.Request) -> web.StreamResponse:
        entry = await self._logged(request, "images", request.path)
        return reply(entry, (200, await asyncio.to_thread(painting.paint, _REFERENCE_BODY, (1024, 1024))))

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        entry = logged(request, "images", request.path, b"")
        self.requests.append(entry)

        def receive() -> shapes.Reply:
            now = self.account.clock()
            return self._endpoints.uploads.receive(
                request.rel_url.raw_path, request.query, request.headers, content, now
            )

        return await self._at_images(request, entry, "upload", receive)

    async def _uploaded(self, request: web.Request) -> web.StreamResponse:
        entry = await self._logged(request, "images", request.path)
        serve = partial(self._endpoints.uploads.serve, request.rel_url.raw_path)
        return await self._at_images(request, entry, "uploaded", serve)

    async def _at_images(
        self, request: web.Request, entry: LoggedRequest, place: str, carry_out: Callable[[], shapes.Reply]
    ) -> web.StreamResponse:
        fault = self._faults.take(place)
        if fault is None:
            return reply(entry, carry_out())
        entry.fault = fault.name
        return await misbehave(request, entry, fault, carry_out, self.base_url)

    async def _logged(self, request: web.Request, host: str, path: str) -> LoggedRequest:
        entry = logged(request, host, path, await request.read())
        self.requests.append(entry)
        return entry
