# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The pages, and the two things that Airflow's own API does not give them: account figures and saved files.

Everything else the page asks Airflow's REST API for, in the user's name. Nothing here fetches a URL or reads a
path that its caller names.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of routes.
import json
import logging
from importlib.resources import files
from pathlib import PurePath
from typing import Annotated, Any
from uuid import UUID

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_connection, requires_access_dag
from airflow.models.xcom import XComModel
from airflow.providers.common.compat.sdk import conf
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from pictory_provider import __version__
from pictory_provider.api.models import DEFAULT_MODEL, MODELS
from pictory_provider.plugins import saved
from pictory_provider.plugins.figures import Figures
from pictory_provider.provider_info import DEFAULT_CONN_ID

log = logging.getLogger(__name__)

STATIC = files("pictory_provider.plugins") / "static"
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
STATICS = {
    file.name: TYPES[suffix]
    for file in sorted(STATIC.iterdir(), key=lambda file: file.name)
    if (suffix := PurePath(file.name).suffix) in TYPES
}
"""What a browser may ask for, and its media type."""
KINDS = {
    "GenerateImageOperator": "generate",
    "DecoratedImageOperator": "generate",
    "GenerateImageBatchOperator": "batch",
    "PictoryJobSensor": "wait",
    "DownloadImageOperator": "save",
}
"""What tasks of our operators do, by the class that Airflow names."""
# Pictory names no host of its pictures, so any may be shown; nothing else comes from anywhere but here.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' https: http:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
MOST = 2**31 - 1
FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"

app = FastAPI(title="Pictory", docs_url=None, redoc_url=None, openapi_url=None)
figures = Figures()


@app.middleware("http")
async def guard(request: Request, call_next: Any) -> Any:
    """Let every reply say what a browser may do with it."""
    reply = await call_next(request)
    reply.headers.setdefault("Content-Security-Policy", FILE_POLICY)
    reply.headers.setdefault("Cache-Control", "no-store")
    reply.headers["X-Content-Type-Options"] = "nosniff"
    reply.headers["Referrer-Policy"] = "no-referrer"
    reply.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return reply


@app.get("/newest")
@app.get("/dag/{dag_id}")
@app.get("/run/{dag_id}/{run_id}")
@app.get("/task/{dag_id}/{run_id}/{task_id}/{map_index}")
def page(request: Request, user: GetUserDep) -> HTMLResponse:  # noqa: ARG001  it has to be someone
    """Return the page, which knows from its own address what to show. It holds no data."""
    below_root = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    told = {
        "prices": {model.name: model.credits for model in MODELS.values()},
        "model": DEFAULT_MODEL,
        "kinds": KINDS,
        "has_files": bool(allowed()),
        "connection": DEFAULT_CONN_ID,
    }
    text = (STATIC / "page.html").read_text(encoding="utf-8")
    # The version is in the path, so that what one script imports is of the same release.
    static = f"{'../' * below_root.strip('/').count('/')}static/{__version__}"
    scripts = [name for name in STATICS if name.endswith(".js")]
    modules = "\n".join(f'<link rel="modulepreload" href="{static}/{name}">' for name in scripts)
    text = text.replace("{{static}}", static).replace("{{modules}}", modules)
    text = text.replace("{{told}}", json.dumps(told).replace("<", "\\u003c"))
    return HTMLResponse(text, headers={"Content-Security-Policy": PAGE_POLICY})


@app.get("/static/{name}")
@app.get("/static/{version}/{name}")
def static(name: str) -> Response:
    """Return one of our own files, which hold nothing of anyone."""
    if name not in STATICS:
        raise HTTPException(404, "Not found")
    content = (STATIC / name).read_bytes()
    return Response(content, media_type=STATICS[name], headers={"Cache-Control": "public, max-age=300"})


@app.get(
    "/account/{connection_id}",
    dependencies=[Depends(requires_access_connection(method="GET"))],
)
def account(connection_id: str, user: GetUserDep) -> JSONResponse:  # noqa: ARG001
    """Return the account's figures, to whoever may read the connection."""
    found = figures.of(connection_id)
    if found is None:
        raise HTTPException(404, "Not found")
    return JSONResponse(found, 200 if found else 202)


HAS_REGIONS = hasattr(XComModel, "region_id")  # Airflow 3.4 and later
KEYS = r"^(image|return_value|pictures_[0-9]{1,6})$"
"""The XComs that hold image records."""


@app.get(
    "/file/{dag_id}/{run_id}/{task_id}/{map_index}/{key}/{number}",
    dependencies=[Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM))],
)
def file(
    request: Request,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: Annotated[int, Path(ge=-1, le=MOST)],
    key: Annotated[str, Path(pattern=KEYS)],
    number: Annotated[int, Path(ge=0, le=MOST)],
    user: GetUserDep,  # noqa: ARG001
) -> Response:
    """Return a saved picture that a task's XCom names, to whoever may read the XComs of its DAG."""
    return picture(request, dag_id, run_id, task_id, key, number, {"map_indexes": map_index})


@app.get(
    "/file/{dag_id}/{run_id}/{task_id}/{region_id}/{region_index}/{key}/{number}",
    dependencies=[Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM))],
)
def file_in_a_region(
    request: Request,
    dag_id: str,
    run_id: str,
    task_id: str,
    region_id: UUID,
    region_index: Annotated[int, Path(ge=-1, le=MOST)],
    key: Annotated[str, Path(pattern=KEYS)],
    number: Annotated[int, Path(ge=0, le=MOST)],
    user: GetUserDep,  # noqa: ARG001
) -> Response:
    """Return the same of a task that is mapped or in a loop, on Airflow 3.4 and later."""
    if not HAS_REGIONS:
        raise HTTPException(404, "Not found")
    place = {"region_id": region_id, "map_indexes": region_index}
    return picture(request, dag_id, run_id, task_id, key, number, place)


def picture(
    request: Request, dag_id: str, run_id: str, task_id: str, key: str, number: int, place: dict[str, Any]
) -> Response:
    """Return the picture that one record of an XCom names.

    :param place: what tells the task instance from the others of its task, for :func:`xcom`.
    """
    roots = allowed()
    if not roots or dag_id == "~":
        raise HTTPException(404, "Not found")
    try:
        claim = saved.Claim.of(saved.record_of(xcom(dag_id, run_id, task_id, key, **place), number))
        etag = f'"{claim.sha256}"'
        headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Cookie, Authorization"}
        if request.headers.get("if-none-match", "").removeprefix("W/") == etag:
            saved.place_of(claim.path, roots)
            return Response(status_code=304, headers=headers)
        content, media_type = saved.opened(claim, roots)
    except saved.NotShown as why:
        log.info("A picture of %s %s %s is not shown: %s.", dag_id, run_id, task_id, str(why)[:300])
        raise HTTPException(404, "Not found") from None
    headers["Content-Length"] = str(claim.size)
    return StreamingResponse(saved.chunks(content, claim.size), media_type=media_type, headers=headers)


def allowed() -> list[str]:
    """Return the entries of ``[pictory] gallery_paths``: nothing by default."""
    text = conf.get("pictory", "gallery_paths", fallback="") or ""
    return [entry.strip() for entry in str(text).replace("\n", ",").split(",") if entry.strip()]


def xcom(dag_id: str, run_id: str, task_id: str, key: str, **place: Any) -> Any:
    """Return the value of one XCom as it lies in Airflow's database; ``None`` where there is none.

    :param place: ``map_indexes``, and ``region_id`` of a task instance in a region.
    """
    with create_session() as session:
        found = session.scalars(
            XComModel.get_many(run_id=run_id, key=key, task_ids=task_id, dag_ids=dag_id, limit=1, **place)
        ).first()
        value = getattr(found[0] if isinstance(found, tuple) else found, "value", None)
    for _ in range(2):  # Airflow 3.1 keeps what was edited over its API as JSON within JSON
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return None
    return value
