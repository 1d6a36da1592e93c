# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The simulator on real sockets: one loopback port for the API, another for the pictures' host."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from pictory_provider.simulator import painting, rules, shapes
from pictory_provider.simulator.account import FATES, Account, page
from pictory_provider.simulator.faults import FAULTS, FaultScript, ScriptedFault

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext

    from pictory_provider.simulator.account import SimulatedJob

HOST = "127.0.0.1"
PREFIX = "/pictoryapis"
DEFAULT_KEY = "pictai_simulator"
MAX_REFERENCE_BYTES = 20 * 1024 * 1024
_EDGE_PAGE = "<!DOCTYPE html><title>Attention Required!</title><p>Error 1010: Access denied.</p>"
_REFERENCE_BODY = {
    "prompt": "A reference image to try things with",
    "model": "simulator",
    "aspectRatio": "1:1",
}

_NO_REFERENCE = ("REFERENCE_IMAGE_ERROR", "The reference image could not be fetched or is no image.")


@dataclass
class LoggedRequest:
    """One request that arrived.

    :param at: epoch seconds.
    :param port: of the connection's other end: requests over one connection have the same.
    :param host: ``api`` or ``images``.
    :param body: the JSON of the body, ``None`` where there was none.
    :param ignored: names of body fields that the documentation does not know, silently dropped.
    :param status: of the reply; 0 where the connection was dropped instead.
    :param fault: the scripted fault that it met.
    """

    at: float
    port: int
    host: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    body: Any = None
    ignored: tuple[str, ...] = ()
    status: int = 0
    fault: str | None = None


class Simulator:
    """A local Pictory, as a context manager.

    :param seconds: how long a job runs.
    :param credits_limit: AI credits of the subscription.
    :param api_key: the only key that is let in.
    :param port: for the API; 0 takes a free one.
    :param images_port: for the pictures' host; 0 takes a free one.
    :param ssl_context: serve both over TLS.
    :param clock: gives epoch seconds; jobs run by it.
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
        self._background: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        self._failure: BaseException | None = None

    # What a test uses --------------------------------------------------------------------------------

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
        """What goes into the connection's host."""
        return f"{self._origin(0)}{PREFIX}"

    @property
    def images_url(self) -> str:
        """The origin of the pictures' host."""
        return self._origin(1)

    @property
    def reference_image_url(self) -> str:
        """A picture that can serve as a reference image."""
        return f"{self.images_url}/samples/reference.png"

    @property
    def submissions(self) -> list[LoggedRequest]:
        """The POSTs for a picture that arrived, whatever became of them."""
        return [r for r in self.requests if r.method == "POST" and r.path == "/v1/aistudio/images"]

    @property
    def polls(self) -> list[LoggedRequest]:
        """The looks at one job that arrived."""
        return [r for r in self.requests if r.method == "GET" and r.path.startswith("/v1/jobs/")]

    def connection(self, **extra: Any) -> dict[str, Any]:
        """Return an Airflow connection to this simulator."""
        return {"conn_type": "pictory", "host": self.base_url, "password": self.api_key, "extra": extra}

    def connection_json(self, **extra: Any) -> str:
        """Return the value for an environment variable such as ``AIRFLOW_CONN_PICTORY_DEFAULT``."""
        return json.dumps(self.connection(**extra))

    def plan(self, fate: str = "completed", **options: Any) -> None:
        """Say what becomes of the next job (:meth:`Account.plan`)."""
        self.account.plan(fate, **options)

    def script(self, place: str, fault: str, *, times: int = 1, **options: Any) -> None:
        """Let the next requests to a place meet a fault.

        :param place: one of :data:`PLACES`.
        :param fault: one of :data:`FAULTS`, which names its options.
        :param times: how many requests meet it; negative means all.
        """
        self._faults.add(ScriptedFault(place, fault, times, options))

    def clear_faults(self) -> None:
        """Forget the scripted faults that still wait for requests."""
        self._faults.waiting.clear()

    def shape(self, name: str, choice: str) -> None:
        """Choose a shape that the documentation leaves open, out of :data:`SHAPES`."""
        if choice not in shapes.SHAPES.get(name, ()):
            raise ValueError(f"no such shape: {name}={choice}; there are {shapes.SHAPES}")
        self.shapes[name] = choice

    def reset(self) -> None:
        """Forget jobs, charges, faults, shapes and requests. The ports stay.

        What still goes on for earlier jobs is waited for first, so that it leaves no trace afterwards.
        """
        asyncio.run_coroutine_threadsafe(self._settle(), self._loop).result()
        self._forget()

    def _forget(self) -> None:
        self.account.reset()
        self.clear_faults()
        self._pictures.clear()
        self.requests.clear()
        self.shapes = {name: choices[0] for name, choices in shapes.SHAPES.items()}

    # Serving -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runners = []
        for index, routes in enumerate((self._api_routes(), self._image_routes())):
            app = web.Application(client_max_size=MAX_REFERENCE_BYTES)
            app.add_routes(routes)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
            await runner.setup()
            site = web.TCPSite(runner, HOST, self._ports[index], ssl_context=self._ssl)
            await site.start()
            self._ports[index] = runner.addresses[0][1]
            runners.append(runner)
        self._started.set()
        await self._stop.wait()
        for task in self._background:
            task.cancel()
        for runner in runners:
            await runner.cleanup()

    def _origin(self, index: int) -> str:
        return f"{'https' if self._ssl else 'http'}://{HOST}:{self._ports[index]}"

    def _api_routes(self) -> list[web.RouteDef]:
        def documented(method: str, path: str, place: str, answer: Answer, *query: str) -> web.RouteDef:
            async def handle(request: web.Request) -> web.StreamResponse:
                return await self._handle(request, place, answer, query)

            return web.route(method, PREFIX + path, handle)

        return [
            documented("POST", "/v1/aistudio/images", "submit", self._submit),
            documented("GET", "/v1/aistudio/images", "images", self._images, "nextPageKey"),
            documented("GET", "/v1/jobs", "jobs", self._jobs, "nextPageKey"),
            documented("GET", "/v1/jobs/{job_id}", "job", self._job),
            documented("DELETE", "/v1/jobs/{job_id}/clean", "clean", self._clean),
            documented("GET", "/v1/quota", "quota", self._quota),
            documented("GET", "/v1/aicredits/usage", "usage", self._usage, "year", "month"),
            web.get("/_simulator/state", self._control_state),
            web.get("/_simulator/requests", self._control_requests),
            web.post("/_simulator/faults", self._control_faults),
            web.delete("/_simulator/faults", self._control_no_faults),
            web.post("/_simulator/jobs", self._control_jobs),
            web.post("/_simulator/reset", self._control_reset),
            web.route("*", "/{rest:.*}", partial(self._unknown, "api")),
        ]

    def _image_routes(self) -> list[web.RouteDef]:
        return [
            web.get("/images/user/{user}/{name}.png", self._picture),
            web.get("/samples/reference.png", self._reference),
            web.route("*", "/{rest:.*}", partial(self._unknown, "images")),
        ]

    async def _handle(
        self, request: web.Request, place: str, answer: Answer, query: tuple[str, ...]
    ) -> web.StreamResponse:
        raw = await request.read()
        entry = self._log(request, "api", request.path.removeprefix(PREFIX), raw)
        fault = self._faults.take(place)
        if fault:
            entry.fault = fault.name
            return await self._misbehave(
                request, entry, fault, lambda: self._answer(request, entry, answer, query)
            )
        return _reply(entry, self._answer(request, entry, answer, query))

    def _answer(
        self, request: web.Request, entry: LoggedRequest, answer: Answer, query: tuple[str, ...]
    ) -> shapes.Reply:
        if request.headers.get("Authorization") != self.api_key:
            return shapes.unauthorized()
        strange = set(request.query) - set(query)
        if strange:
            return _refused(400, f"no documented query parameter: {', '.join(sorted(strange))}")
        return answer(request, entry)

    # The endpoints -----------------------------------------------------------------------------------

    def _submit(self, request: web.Request, entry: LoggedRequest) -> shapes.Reply:
        if request.content_type != "application/json":
            return _refused(400, "Content-Type must be application/json")
        body = entry.body
        if not isinstance(body, dict):
            return shapes.invalid({"body": "must be a JSON object"}, self.shapes["invalid"])
        entry.ignored = tuple(sorted(set(body) - set(rules.FIELDS)))
        found = rules.problems(body)
        if found:
            return shapes.invalid(found, self.shapes["invalid"])
        shape = self.shapes["insufficient"]
        if shape != "failed-job" and not self.account.can_pay(body):
            return shapes.insufficient(shape)
        job = self.account.accept(body)
        if "referenceImageUrl" in job.body:
            job.waits_for_reference = True
            self._in_background(self._fetch_reference(job))
        if "webhook" in job.body:
            self._in_background(self._call_webhook(job))
        return shapes.accepted(job)

    def _job(self, request: web.Request, _: LoggedRequest) -> shapes.Reply:
        job = self.account.find(request.match_info["job_id"])
        if job is None:
            return shapes.missing(self.shapes["missing"])
        return shapes.job(job, self.account.clock(), self._url(job), self.shapes["failed"])

    def _clean(self, request: web.Request, _: LoggedRequest) -> shapes.Reply:
        job = self.account.find(request.match_info["job_id"])
        if job is None:
            return shapes.missing(self.shapes["missing"])
        if job.status(self.account.clock()) == "in-progress":
            return _refused(400, "only a completed or failed job can be cleaned")
        job.is_cleaned = True
        return 200, {"success": True}

    def _images(self, request: web.Request, _: LoggedRequest) -> shapes.Reply:
        items = [shapes.image(job, self._url(job)) for job in self.account.gallery()]
        return _paged(items, request, always=False)

    def _jobs(self, request: web.Request, _: LoggedRequest) -> shapes.Reply:
        now = self.account.clock()
        found = sorted(self.account.jobs.values(), key=lambda job: job.created, reverse=True)
        return _paged([shapes.listed_job(job, now) for job in found], request, always=True)

    def _quota(self, *_: Any) -> shapes.Reply:
        return shapes.quota(self.account)

    def _usage(self, request: web.Request, _: LoggedRequest) -> shapes.Reply:
        try:
            year, month = (int(v) if (v := request.query.get(n)) else None for n in ("year", "month"))
        except ValueError:
            return _refused(400, "year and month must be numbers")
        if (year is not None and month is None) or (month is not None and not 1 <= month <= 12):
            return 400, {"code": "INVALID_REQUEST", "message": "month must be given, from 1 to 12"}
        return 200, self.account.usage(year, month)

    async def _unknown(self, host: str, request: web.Request) -> web.StreamResponse:
        entry = self._log(request, host, request.path, await request.read())
        return _reply(entry, _refused(404, f"no documented endpoint: {request.method} {request.path}"))

    # The pictures' host ------------------------------------------------------------------------------

    async def _picture(self, request: web.Request) -> web.StreamResponse:
        entry = self._log(request, "images", request.path, b"")
        if "Authorization" in request.headers:
            return _reply(entry, _refused(400, "this host takes no Authorization header"))
        name = request.match_info["name"]
        now = self.account.clock()
        job = next((j for j in self.account.jobs.values() if j.image_id == name), None)
        if job is None or job.status(now) != "completed":
            return _reply(entry, _refused(403, "AccessDenied"))
        if name not in self._pictures:
            self._pictures[name] = await asyncio.to_thread(painting.paint, job.body, job.size, job.reference)
        content = self._pictures[name]
        fault = self._faults.take("picture")
        if not fault:
            return _reply(entry, (200, content))
        entry.fault = fault.name
        if fault.name == "wrong-size":
            content = await asyncio.to_thread(painting.paint, job.body, (640, 640))
            return _reply(entry, (200, content))
        if fault.name in ("jpeg", "webp"):
            return _reply(entry, (200, await asyncio.to_thread(painting.as_kind, content, fault.name)))
        return await self._misbehave(request, entry, fault, lambda: (200, content))

    async def _reference(self, request: web.Request) -> web.StreamResponse:
        entry = self._log(request, "images", request.path, b"")
        return _reply(entry, (200, await asyncio.to_thread(painting.paint, _REFERENCE_BODY, (1024, 1024))))

    def _url(self, job: SimulatedJob) -> str:
        signature = "?Expires=1&Signature=simulated" if self.shapes["url"] == "signed" else ""
        return f"{self.images_url}/images/user/{job.job_id}/{job.image_id}.png{signature}"

    # What happens in the background ------------------------------------------------------------------

    def _in_background(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _settle(self) -> None:
        """Let the background end: fetched images soon do, and what waits for a job's end is cancelled."""
        if self._background:
            _, waiting = await asyncio.wait(self._background, timeout=0.5)
            for task in waiting:
                task.cancel()

    async def _fetch_reference(self, job: SimulatedJob) -> None:
        try:
            content = await _fetch_from_loopback(job.body["referenceImageUrl"])
            job.reference = await asyncio.to_thread(painting.read_image, content) if content else None
            if job.reference is None and job.fate == "completed":
                job.fate = "failed"
                job.error_code, job.error_message = _NO_REFERENCE
        finally:
            job.waits_for_reference = False

    async def _call_webhook(self, job: SimulatedJob) -> None:
        while job.status(self.account.clock()) == "in-progress":
            await asyncio.sleep(0.05)
        if not _is_loopback(job.body["webhook"]):
            return
        _, body = shapes.job(job, self.account.clock(), self._url(job), self.shapes["failed"])
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
                await session.post(job.body["webhook"], json=body)

    # Misbehaving -------------------------------------------------------------------------------------

    async def _misbehave(
        self,
        request: web.Request,
        entry: LoggedRequest,
        fault: ScriptedFault,
        carry_out: Callable[[], shapes.Reply],
    ) -> web.StreamResponse:
        name = fault.name
        if name in ("drop-before", "drop-after"):
            if name == "drop-after":
                carry_out()
            return _drop(request, reset=fault.is_on("reset"))
        if (name in _REFUSALS or name in _STATUSES) and fault.is_on("accepted"):
            carry_out()
        if name in _REFUSALS:
            return _reply(entry, _REFUSALS[name], retry_after=fault.option("retry_after"))
        if name in _STATUSES:
            status = int(fault.option("status", _STATUSES[name]))
            location = {"Location": str(fault.option("to", self.base_url))} if name == "redirect" else {}
            return _reply(entry, (status, {"message": name}), headers=location)
        pause = float(fault.option("seconds", 0.1 if name == "drip" else 5))
        if name == "slow":
            await asyncio.sleep(pause)
        reply = carry_out()
        if name == "slow-reply":
            await asyncio.sleep(pause)
        if name in ("slow", "slow-reply"):
            return _reply(entry, reply)
        if name in _SPOILED:
            return _reply(entry, (200, _SPOILED[name](_encode(reply[1]))))
        return await _broken_stream(request, entry, fault, reply, pause)

    # Control over HTTP, for a simulator that runs as a program ---------------------------------------

    async def _control_state(self, _: web.Request) -> web.Response:
        now = self.account.clock()
        jobs = [
            {"jobId": job.job_id, "status": job.status(now), "credits": job.credits, "request": job.body}
            for job in self.account.jobs.values()
        ]
        return web.json_response({"credits_used": self.account.credits_used, "jobs": jobs, "shapes": self.shapes})

    async def _control_requests(self, _: web.Request) -> web.Response:
        hidden = {"Authorization": "***"}
        shown = [
            asdict(r) | {"headers": {n: hidden.get(n, v) for n, v in r.headers.items()}} for r in self.requests
        ]
        return web.json_response(shown)

    async def _control_faults(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        try:
            self.script(wanted.pop("place"), wanted.pop("fault"), times=int(wanted.pop("times", 1)), **wanted)
        except (KeyError, ValueError) as error:
            return web.json_response({"message": str(error), "faults": FAULTS}, status=400)
        return web.json_response({"success": True})

    async def _control_no_faults(self, _: web.Request) -> web.Response:
        self.clear_faults()
        return web.json_response({"success": True})

    async def _control_jobs(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        try:
            self.plan(wanted.pop("fate", "completed"), **wanted)
        except ValueError as error:
            return web.json_response({"message": str(error), "fates": FATES}, status=400)
        return web.json_response({"success": True})

    async def _control_reset(self, _: web.Request) -> web.Response:
        await self._settle()
        self._forget()
        return web.json_response({"success": True})

    def _log(self, request: web.Request, host: str, path: str, raw: bytes) -> LoggedRequest:
        body: Any = None
        if raw:
            try:
                body = json.loads(raw)
            except ValueError:
                body = raw.decode("utf-8", "replace")
        entry = LoggedRequest(
            at=time.time(),
            port=_port(request),
            host=host,
            method=request.method,
            path=path,
            query=dict(request.query),
            headers=dict(request.headers),
            body=body,
        )
        self.requests.append(entry)
        return entry


if TYPE_CHECKING:
    Answer = Callable[[web.Request, LoggedRequest], shapes.Reply]

_REFUSALS: dict[str, shapes.Reply] = {
    "rate-limited": (429, {"message": "Too Many Requests"}),
    "unavailable": (503, {"message": "Service Unavailable"}),
    "edge-block": (403, _EDGE_PAGE),
    "unauthorized": shapes.unauthorized(),
    "forbidden": (403, {"message": "Forbidden"}),
}

_STATUSES = {"server-error": 500, "redirect": 302}

_SPOILED: dict[str, Callable[[bytes], Any]] = {
    "garbage": lambda _: "<html>this is not JSON</html>",
    "empty": lambda _: {},
    "truncated": lambda content: content[: len(content) // 2],
    "not-a-png": lambda _: "<html>this is not a picture</html>",
    "trailing": lambda content: content + b"\n",
    "damaged": lambda content: content[:200] + bytes([content[200] ^ 0xFF]) + content[201:],
}


def _port(request: web.Request) -> int:
    peer = request.transport and request.transport.get_extra_info("peername")
    return int(peer[1]) if peer else 0


def _refused(status: int, message: str) -> shapes.Reply:
    return status, {"code": "REFUSED_BY_THE_SIMULATOR", "message": message}


def _paged(items: list[Any], request: web.Request, *, always: bool) -> shapes.Reply:
    try:
        shown, following = page(items, request.query.get("nextPageKey"))
    except ValueError:
        return _refused(400, "no such nextPageKey")
    body: dict[str, Any] = {"items": shown}
    if following or always:
        body["nextPageKey"] = following
    return 200, body


def _encode(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def _content_type(body: Any) -> str:
    if isinstance(body, bytes):
        return "image/png"
    return "text/html" if isinstance(body, str) else "application/json"


def _reply(
    entry: LoggedRequest,
    reply: shapes.Reply,
    *,
    headers: dict[str, str] | None = None,
    retry_after: object = None,
) -> web.Response:
    status, body = reply
    entry.status = status
    sent = dict(headers or {})
    if retry_after is not None:
        sent["Retry-After"] = str(retry_after)
    return web.Response(status=status, body=_encode(body), content_type=_content_type(body), headers=sent)


def _drop(request: web.Request, *, reset: bool) -> web.Response:
    transport = request.transport
    if transport is not None:
        if reset:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def _broken_stream(
    request: web.Request, entry: LoggedRequest, fault: ScriptedFault, reply: shapes.Reply, pause: float
) -> web.StreamResponse:
    """Play what breaks in the middle of a reply: drop-during and drip."""
    status, body = reply
    content = _encode(body)
    response = web.StreamResponse(status=status, headers={"Content-Type": _content_type(body)})
    response.content_length = len(content)
    entry.status = status
    await response.prepare(request)
    if fault.name == "drip":
        with suppress(ConnectionError):
            for position in range(len(content)):
                await response.write(content[position : position + 1])
                await asyncio.sleep(pause)
        return response
    await response.write(content[: len(content) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _fetch_from_loopback(url: str) -> bytes | None:
    """Return what a loopback address serves; the simulator reaches no other."""
    if not _is_loopback(url):
        return None
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(url, allow_redirects=False, ssl=False) as reply,
        ):
            if reply.status != 200:
                return None
            content = bytearray()
            async for piece in reply.content.iter_chunked(65_536):
                content += piece
                if len(content) > MAX_REFERENCE_BYTES:
                    return None
            return bytes(content)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None
