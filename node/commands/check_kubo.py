"""What `doctor` hears from the IPFS daemon that is configured: whether it is reached, lets this node in, and is one."""

from __future__ import annotations

from ...protocols.errors import AccelError, ErrorCode
from ..config import Config
from .check import Check

_PATIENCE_S = 10.0


def daemon(config: Config) -> list[Check]:
    """Nothing where none is configured; jobs do not need one."""
    if config.kubo is None:
        return []
    try:
        import trio

        return [Check("IPFS daemon", True, False, f"{trio.run(_version, config)} at {config.kubo}")]
    except ImportError as error:
        install = "pip install ipfs-accel-node"
        return [Check("IPFS daemon", False, False, f"cannot be asked: {error}", ErrorCode.BACKEND_MISSING, install)]
    except AccelError as error:
        return [Check("IPFS daemon", False, False, error.message, error.code, error.hint)]


async def _version(config: Config) -> str:
    import trio

    from ..content.kubo import Kubo
    from ..content.kubo_address import parse_kubo

    try:
        with trio.fail_after(_PATIENCE_S):
            async with Kubo(parse_kubo(config.kubo or ""), config.kubo_auth) as kubo:
                version = await kubo.version()
                await kubo.peer_id()  # which needs to be let in, where a version may be had by all
                return version
    except trio.TooSlowError:
        raise AccelError(
            ErrorCode.KUBO_UNREACHABLE, f"silent for {_PATIENCE_S:g} s at {config.kubo}", "See what its log says."
        ) from None
