"""An agent: a name and an async `reply`."""

from aipo_chem.tool import MASSES
from aipo_env import AgentReply, AgentRequest


class Chemist:
    """Tells the mass of an element by its symbol, and checks claims such as `C=12`."""

    agent_id = "chemist"
    is_deterministic = True

    async def reply(self, request: AgentRequest) -> AgentReply:
        symbol, _, claimed = request.query.partition("=")
        mass = str(MASSES[symbol.strip()])
        return AgentReply(
            text=(
                "right"
                if claimed.strip() == mass
                else f"{symbol.strip()} has {mass} g/mol"
            )
        )


Chemist.check_with = {"query": "C"}  # what the conformance kit asks it
