# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Control over HTTP, for a simulator that runs as a program."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pictory_provider.simulator.account import FATES
from pictory_provider.simulator.faults import FAULTS
from pictory_provider.simulator.settings import SETTINGS
from pictory_provider.simulator.shapes import SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pictory_provider.simulator.server import Simulator


def routes(simulator: Simulator) -> list[web.RouteDef]:
    """Return the routes below ``/_simulator``."""

    async def state(_: web.Request) -> web.Response:
        account = simulator.account
        now = account.clock()
        jobs = [
            {"jobId": job.job_id, "status": job.status(now), "credits": job.credits, "request": job.body}
            for job in account.jobs.values()
        ]
        sums = {name: getattr(account, name) for name in ("credits_used", "credits_billed", "credits_by_others")}
        return web.json_response(sums | {"jobs": jobs, "shapes": simulator.shapes, "settings": account.settings})

    async def requests(_: web.Request) -> web.Response:
        hidden = {"Authorization": "***"}
        return web.json_response(
            [
                asdict(request) | {"headers": {n: hidden.get(n, v) for n, v in request.headers.items()}}
                for request in simulator.requests
            ]
        )

    async def no_faults(_: web.Request) -> web.Response:
        simulator.clear_faults()
        return web.json_response({"success": True})

    async def reset(_: web.Request) -> web.Response:
        await simulator.forget()
        return web.json_response({"success": True})

    return [
        web.get("/_simulator/state", state),
        web.get("/_simulator/requests", requests),
        web.delete("/_simulator/faults", no_faults),
        web.post("/_simulator/reset", reset),
        *(web.post(f"/_simulator/{each[0]}", partial(_change, *each)) for each in _changes(simulator)),
    ]


def _changes(simulator: Simulator) -> list[tuple[str, Callable[..., None], Mapping[str, Any]]]:
    """Return the changes: name, function that takes the fields of the JSON, and choices for the error message."""

    def faults(place: str, fault: str, times: Any = 1, **options: Any) -> None:
        simulator.script(place, fault, times=int(times), **options)

    def shapes(**chosen: str) -> None:
        for each in chosen.items():
            simulator.shape(*each)

    return [
        ("faults", faults, FAULTS),
        ("jobs", simulator.plan, FATES),
        ("shapes", shapes, SHAPES),
        ("settings", simulator.set, SETTINGS),
        ("ledger", simulator.enter, {}),
    ]


async def _change(
    name: str, change: Callable[..., None], choices: Mapping[str, Any], request: web.Request
) -> web.Response:
    try:
        change(**await request.json())
    except (TypeError, ValueError) as error:
        return web.json_response({"message": str(error), name: choices}, status=400)
    return web.json_response({"success": True})
