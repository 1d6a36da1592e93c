# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The pages, and the data that Airflow's own API does not have: account usage, saved files, and XComs that an XCom
backend stores outside Airflow's database.

The pages get everything else from Airflow's REST API with the user's permissions. No route here fetches a URL or
reads a path that its caller names.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of routes.
import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.resources import files
from pathlib import PurePath
from typing import IO, Annotated, Any, TypeVar
from uuid import UUID

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_connection, requires_access_dag
from airflow.configuration import AIRFLOW_HOME
from airflow.providers.common.compat.sdk import conf
from fastapi import Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from starlette.exceptions import HTTPException as AnyHTTPException

from pictory_provider import __version__
from pictory_provider.api.models import DEFAULT_MODEL, MODELS
from pictory_provider.links.pictory import page_of, tab_of
from pictory_provider.plugins import saved_files, thumbnails, xcoms
from pictory_provider.plugins.account_usage import UsageCache
from pictory_provider.provider_info import DEFAULT_CONN_ID

log = logging.getLogger(__name__)

STATIC = files("pictory_provider.plugins") / "static"
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
STATICS = {
    file.name: TYPES[suffix]
    for file in sorted(STATIC.iterdir(), key=lambda file: file.name)
    if (suffix := PurePath(file.name).suffix) in TYPES
}
"""The static files by name, with their media types."""
KINDS = {
    "GenerateImageOperator": "generate",
    "DecoratedImageOperator": "generate",
    "GenerateImageBatchOperator": "batch",
    "PictoryJobSensor": "wait",
    "DownloadImageOperator": "save",
}
"""What a task does, by the class name of its operator in Airflow."""
# Pictory documents no host for its pictures, so images may come from any host. All else comes from this server
# only.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' https: http:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
MapIndex = Annotated[int, Path(ge=-1, le=2**31 - 1)]
FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"

app = FastAPI(title="Pictory", docs_url=None, redoc_url=None, openapi_url=None)
usage_cache = UsageCache()
maker = thumbnails.ThumbnailMaker()
Answer = TypeVar("Answer")


@app.middleware("http")
async def guard(request: Request, call_next: Any) -> Any:
    """Add security headers to every reply."""
    reply = await call_next(request)
    reply.headers.setdefault("Content-Security-Policy", FILE_POLICY)
    reply.headers.setdefault("Cache-Control", "no-store")
    reply.headers["X-Content-Type-Options"] = "nosniff"
    reply.headers["Referrer-Policy"] = "no-referrer"
    reply.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return reply


@app.exception_handler(AnyHTTPException)
async def refused(request: Request, error: AnyHTTPException) -> Response:
    """Answer with an error page if a browser navigates here, and with JSON if a script calls."""
    if "text/html" not in request.headers.get("accept", ""):
        return await http_exception_handler(request, error)
    config = {"kinds": {}, "refused": {"status": error.status_code, "detail": error.detail}}
    return shell(request, config, error.status_code, error.headers)


@app.exception_handler(RequestValidationError)
async def misaddressed(request: Request, error: RequestValidationError) -> Response:
    """Answer in the same way for an invalid path parameter."""
    if "text/html" not in request.headers.get("accept", ""):
        return await request_validation_exception_handler(request, error)
    return await refused(request, AnyHTTPException(404))


@app.get("/newest")
@app.get("/dag/{dag_id}")
@app.get("/run/{dag_id}/{run_id}")
@app.get("/task/{dag_id}/{run_id}/{task_id}/{map_index}")
def page(request: Request, user: GetUserDep) -> HTMLResponse:  # noqa: ARG001  requires a signed-in user
    """Return the page. It holds no data; its script derives what to show from the page's own URL."""
    config = {
        "prices": {model.name: model.credits for model in MODELS.values()},
        "model": DEFAULT_MODEL,
        "kinds": KINDS,
        "has_files": bool(allowed()),
        "has_backend": not xcoms.is_default_backend(),
        "connection": DEFAULT_CONN_ID,
    }
    return shell(request, config)


def shell(
    request: Request, config: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Return the HTML of a page with the configuration of its script, and without any data from Airflow.

    Airflow may frame an error page too: for a page that may not be framed, a browser says that the host refused to
    connect.
    """
    text = (STATIC / "page.html").read_text(encoding="utf-8")
    # The version is in the path, so that all scripts of a page are from the same release.
    static = f"{to_root(request)}static/{__version__}"
    scripts = [name for name in STATICS if name.endswith(".js")]
    modules = "\n".join(f'<link rel="modulepreload" href="{static}/{name}">' for name in scripts)
    text = text.replace("{{static}}", static).replace("{{modules}}", modules)
    text = text.replace("{{config}}", json.dumps(config).replace("<", "\\u003c"))
    return HTMLResponse(text, status, {**(headers or {}), "Content-Security-Policy": PAGE_POLICY})


def to_root(request: Request) -> str:
    """Return the relative path from a request's URL to the application's mount point: a number of ``../``.

    A relative path is right behind a proxy that adds a prefix too. A slash in an id is ``%2F`` in the raw path.
    """
    raw: bytes = request.scope.get("raw_path", b"")
    root: str = request.scope.get("root_path", "")
    address = raw.decode("latin-1") or str(request.scope["path"])
    return "../" * address.removeprefix(root).lstrip("/").count("/")


@app.get("/open/{dag_id}/{run_id}/{task_id}/{map_index}")
def open_task(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: MapIndex, user: GetUserDep
) -> RedirectResponse:
    """Redirect to a task's tab, or to its page outside Airflow's UI if Airflow shows this user no tabs.

    Airflow's UI gets the tabs from ``GET /api/v2/plugins``, which needs the right to read plugins. FAB's stock
    roles *Viewer* and *User* do not have it, and get a 404 for the URL of a tab.
    """
    has_tabs = get_auth_manager().is_authorized_view(access_view=AccessView.PLUGINS, user=user)
    task = dag_id, run_id, task_id, map_index
    target = f"../{tab_of(*task)}" if has_tabs else page_of("task", *task)
    return RedirectResponse(f"{to_root(request)}{target}", 307)


@app.get("/static/{name}")
@app.get("/static/{version}/{name}")
def static(name: str) -> Response:
    """Return a static file of this package, without any check of permissions: these files hold no data."""
    if name not in STATICS:
        raise HTTPException(404, "Not found")
    content = (STATIC / name).read_bytes()
    return Response(content, media_type=STATICS[name], headers={"Cache-Control": "public, max-age=300"})


@app.get("/account/{connection_id}", dependencies=[Depends(requires_access_connection(method="GET"))])
def account(connection_id: str, user: GetUserDep) -> JSONResponse:  # noqa: ARG001
    """Return the account's usage to a user who may read the connection; 202 while it is being requested."""
    usage = usage_cache.get(connection_id)
    if usage is None:
        raise HTTPException(404, "Not found")
    return JSONResponse(usage, 200 if usage else 202)


may_read_xcoms = Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM))
Key = Annotated[str, Path(pattern=xcoms.KEYS)]
FileKey = Annotated[str, Path(pattern=rf"^({xcoms.FILES})$")]
"""The XComs that hold image records."""
Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
READERS = 8
"""Concurrent reads: a storage that hangs blocks at most this many threads of the API server."""
readers = asyncio.Semaphore(READERS)


def outside_regions(dag_id: str, run_id: str, task_id: str, map_index: MapIndex) -> dict[str, Any]:
    """Return the arguments of :func:`xcoms.read_xcom` for a task instance outside any region."""
    return {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_indexes": map_index}


def in_region(dag_id: str, run_id: str, task_id: str, region_id: UUID, region_index: MapIndex) -> dict[str, Any]:
    """Return the same for a task that is mapped or in a loop, on Airflow 3.4 and later."""
    if not xcoms.HAS_REGIONS:
        raise HTTPException(404, "Not found")
    return outside_regions(dag_id, run_id, task_id, region_index) | {"region_id": region_id}


def add_routes(path: str, instance_of: Callable[..., dict[str, Any]]) -> None:
    """Add the routes that read XComs.

    :param path: the part of their path that names one instance of a task.
    :param instance_of: returns the arguments of :func:`xcoms.read_xcom` for that instance.
    """
    base = f"{{dag_id}}/{{run_id}}/{{task_id}}/{path}/{{key}}"
    Instance = Annotated[dict[str, Any], Depends(instance_of)]  # noqa: N806  a type, as FastAPI reads it

    @app.get(f"/xcom/{base}", dependencies=[may_read_xcoms])
    async def xcom(instance: Instance, key: Key, _: GetUserDep) -> JSONResponse:
        return await read(instance | {"key": key})

    @app.get(f"/file/{base}/{{sha256}}", dependencies=[may_read_xcoms])
    def file(request: Request, instance: Instance, key: FileKey, sha256: Digest, _: GetUserDep) -> Response:
        return answer(instance | {"key": key}, sha256, lambda _, claim: picture(request, claim))

    @app.get(f"/thumbnail/{base}/{{sha256}}", dependencies=[may_read_xcoms])
    async def thumbnail(
        request: Request, instance: Instance, key: FileKey, sha256: Digest, _: GetUserDep
    ) -> Response:
        return await small_picture(request, instance | {"key": key}, sha256)


async def read(which: dict[str, Any]) -> JSONResponse:
    """Return an XCom from a custom XCom backend. With Airflow's own backend the pages use Airflow's REST API.

    404: there is no such XCom. 410: its value can no longer be read. 503: its value cannot be read now.

    :param which: the arguments of :func:`xcoms.read_xcom`.
    """
    if which["dag_id"] == "~" or xcoms.is_default_backend():
        raise HTTPException(404, "Not found")
    try:
        async with readers:
            value = await run_in_threadpool(xcoms.read_xcom, **which)
    except xcoms.Missing:
        raise HTTPException(404, "Not found") from None
    except xcoms.Unreadable as why:
        log.warning("Could not read the XCom %s: %s.", which, str(why)[:300])
        raise HTTPException(410 if why.is_gone else 503, "The XCom could not be read") from None
    return JSONResponse({"value": value})


def answer(
    which: dict[str, Any], sha256: str, show: Callable[[dict[str, Any], saved_files.Claim], Answer]
) -> Answer:
    """Return what a function makes of the saved picture with this digest, if a record of the XCom names it.

    404: there is no such picture, or it may not be shown.

    :param which: the arguments of :func:`xcoms.read_xcom`.
    :param show: takes the image record, and what it claims about the file.
    """
    roots = allowed()
    if not roots or which["dag_id"] == "~":
        raise HTTPException(404, "Not found")
    with shown_or_not_found(which):
        record = saved_files.find_record(xcoms.read_xcom(**which), sha256)
        claim = saved_files.Claim.from_record(record)
        saved_files.locate(claim.path, roots)
        return show(record, claim)


@contextmanager
def shown_or_not_found(which: dict[str, Any]) -> Iterator[None]:
    """Answer with 404 if a picture may not be shown, and log why."""
    try:
        yield
    except (saved_files.NotShown, xcoms.Missing, xcoms.Unreadable) as why:
        log.info("A picture of the XCom %s is not shown: %s.", which, str(why)[:300])
        raise HTTPException(404, "Not found") from None


def picture(request: Request, claim: saved_files.Claim, *, with_avif: bool = False) -> Response:
    """Return a saved picture.

    :raises saved_files.NotShown: if it may not be shown.
    """
    etag = f'"{claim.sha256}"'
    if has_cached(request, etag):
        return Response(status_code=304, headers=headers_of(etag))
    content, media_type = saved_files.open_picture(claim, allowed(), with_avif=with_avif)
    headers = headers_of(etag) | {"Content-Length": str(claim.size)}
    return FileReply(content, claim.size, media_type=media_type, headers=headers)


async def small_picture(request: Request, which: dict[str, Any], sha256: str) -> Response:
    """Return a thumbnail of the saved picture with this digest, or the picture if there can be no thumbnail.

    :param which: the arguments of :func:`xcoms.read_xcom`.
    """
    async with readers:
        found = await run_in_threadpool(answer, which, sha256, partial(existing_thumbnail, request))
    if not isinstance(found, saved_files.Claim):
        return found
    with shown_or_not_found(which):
        # Others may wait for the same thumbnail, and it is cached: it is made even if this client disconnects.
        data = await asyncio.shield(asyncio.wrap_future(maker.make(found, allowed(), thumbnail_cache())))
        if data is None:
            async with readers:
                return await run_in_threadpool(picture, request, found)
    return thumbnail_reply(found, data)


def existing_thumbnail(
    request: Request, record: dict[str, Any], claim: saved_files.Claim
) -> Response | saved_files.Claim:
    """Return a thumbnail without making one: a copy of the picture, a cached thumbnail, or the picture itself.

    :return: the claim if a thumbnail can be made.
    :raises saved_files.NotShown: if the picture may not be shown.
    """
    etag = thumbnails.etag_of(claim.sha256)
    if has_cached(request, etag):
        return Response(status_code=304, headers=headers_of(etag))
    for copy in thumbnails.copies_of(record, claim):
        if copy.size > thumbnails.MOST_OF_A_COPY and thumbnails.can_make():
            break  # the others have more bytes
        with suppress(saved_files.NotShown):
            saved_files.locate(copy.path, allowed())
            return picture(request, copy, with_avif=saved_files.AVIF in request.headers.get("accept", ""))
    if not thumbnails.can_make() or maker.is_refused(claim.sha256):
        return picture(request, claim)
    data = thumbnail_cache().get(claim.sha256)
    if data is None:
        return claim
    saved_files.check_picture(claim, allowed())
    return thumbnail_reply(claim, data)


def thumbnail_reply(claim: saved_files.Claim, data: bytes) -> Response:
    """Return a thumbnail that the server has made."""
    headers = headers_of(thumbnails.etag_of(claim.sha256))
    return Response(data, media_type=thumbnails.MEDIA_TYPE, headers=headers)


def has_cached(request: Request, etag: str) -> bool:
    """Whether the browser has what this entity tag stands for."""
    return request.headers.get("if-none-match", "").removeprefix("W/") == etag


def headers_of(etag: str) -> dict[str, str]:
    """Return the headers with which a browser keeps a picture, and asks each time whether it may still show it."""
    return {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Cookie, Authorization, Accept"}


add_routes("{map_index}", outside_regions)
add_routes("{region_id}/{region_index}", in_region)


class FileReply(StreamingResponse):
    """Sends an open file, and closes it afterwards, also if the client disconnects early."""

    def __init__(self, content: IO[bytes], size: int, **kwargs: Any) -> None:
        super().__init__(saved_files.chunks(content, size), **kwargs)
        self._content = content

    async def __call__(self, *channels: Any) -> None:
        """Send the file."""
        try:
            await super().__call__(*channels)
        finally:
            self._content.close()


def thumbnail_cache() -> thumbnails.ThumbnailCache:
    """Return the cache of thumbnails in ``[pictory] thumbnail_cache``."""
    text = conf.get("pictory", "thumbnail_cache", fallback="") or ""
    return cache_in(str(text).strip() or os.path.join(AIRFLOW_HOME, "pictory-thumbnails"))


@cache
def cache_in(folder: str) -> thumbnails.ThumbnailCache:
    """Return the cache in a folder. Each process has one, which counts what it writes."""
    return thumbnails.ThumbnailCache(folder)


def allowed() -> list[str]:
    """Return the entries of ``[pictory] gallery_paths``, which is empty by default."""
    text = conf.get("pictory", "gallery_paths", fallback="") or ""
    return [entry.strip() for entry in str(text).replace("\n", ",").split(",") if entry.strip()]
