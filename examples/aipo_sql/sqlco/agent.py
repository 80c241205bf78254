"""An agent for the role `knowledge`: it knows what the company's words mean."""

from aipo_env import AgentReply, AgentRequest

MEANINGS = {
    "active": "An active customer has status 2.",
    "big": "A big order is one of 700 cents or more.",
    "senior": "A senior is on the staff with grade 6 or higher.",
}


class Glossary:
    """Explains every word that it knows of those it is asked about."""

    agent_id = "glossary"
    is_deterministic = True

    async def reply(self, request: AgentRequest) -> AgentReply:
        asked = request.query.lower()
        known = [meaning for word, meaning in MEANINGS.items() if word in asked]
        return AgentReply(text=" ".join(known) or f"I know: {', '.join(MEANINGS)}.")


Glossary.check_with = {"query": "active"}  # what the conformance kit asks it
