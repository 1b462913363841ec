"""POST /mcp: the agents and their tools for whoever speaks the Model Context Protocol."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.edge import MCP_PATH
from gateway.errors import ApiError
from gateway.state import gateway_of
from gateway.wire import load, read_body

router = APIRouter()


@router.post(MCP_PATH, include_in_schema=False)  # the protocol describes itself
async def mcp(request: Request) -> Response:
    """One JSON-RPC message. The key is an ordinary one; nothing is listed that it may not use."""
    gateway = gateway_of(request)
    request.state.caller = await gateway.auth.require(request, "invoke")
    if gateway.mcp is None:
        message = "No MCP server is here. The operator can switch it on: `mcp = true` in [gateway]."
        raise ApiError(404, message, code="not_found")
    data = await read_body(request.receive, gateway.config.max_body_bytes)
    load(data, gateway.config.bounds)
    return gateway.mcp.response(data)
