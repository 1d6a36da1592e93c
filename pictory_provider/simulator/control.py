# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Control over HTTP, for a simulator that runs as a program."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from aiohttp import web

from pictory_provider.simulator.account import FATES
from pictory_provider.simulator.faults import FAULTS

if TYPE_CHECKING:
    from pictory_provider.simulator.server import Simulator


def routes(simulator: Simulator) -> list[web.RouteDef]:
    """Return the routes below ``/_simulator``."""

    async def state(_: web.Request) -> web.Response:
        now = simulator.account.clock()
        jobs = [
            {"jobId": job.job_id, "status": job.status(now), "credits": job.credits, "request": job.body}
            for job in simulator.account.jobs.values()
        ]
        return web.json_response(
            {"credits_used": simulator.account.credits_used, "jobs": jobs, "shapes": simulator.shapes}
        )

    async def requests(_: web.Request) -> web.Response:
        hidden = {"Authorization": "***"}
        shown = [
            asdict(r) | {"headers": {n: hidden.get(n, v) for n, v in r.headers.items()}}
            for r in simulator.requests
        ]
        return web.json_response(shown)

    async def faults(request: web.Request) -> web.Response:
        wanted = await request.json()
        try:
            simulator.script(wanted.pop("place"), wanted.pop("fault"), times=int(wanted.pop("times", 1)), **wanted)
        except (KeyError, ValueError) as error:
            return web.json_response({"message": str(error), "faults": FAULTS}, status=400)
        return web.json_response({"success": True})

    async def no_faults(_: web.Request) -> web.Response:
        simulator.clear_faults()
        return web.json_response({"success": True})

    async def jobs(request: web.Request) -> web.Response:
        wanted = await request.json()
        try:
            simulator.plan(wanted.pop("fate", "completed"), **wanted)
        except ValueError as error:
            return web.json_response({"message": str(error), "fates": FATES}, status=400)
        return web.json_response({"success": True})

    async def reset(_: web.Request) -> web.Response:
        await simulator.forget()
        return web.json_response({"success": True})

    return [
        web.get("/_simulator/state", state),
        web.get("/_simulator/requests", requests),
        web.post("/_simulator/faults", faults),
        web.delete("/_simulator/faults", no_faults),
        web.post("/_simulator/jobs", jobs),
        web.post("/_simulator/reset", reset),
    ]
