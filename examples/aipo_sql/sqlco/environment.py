"""The environment: which components are played together, by which rules, and its
ids.
"""

import gymnasium as gym

PROMPT = """\
Answer a question about a company's SQLite database with one query, in a block:
```sql
SELECT name FROM staff
```
The tables are customer, orders and staff. Look before you answer.
{tools}"""
"""The system prompt of every episode. How the agent is consulted is put behind it."""

OPTIONS = {
    "source": "sql",
    "tools": ["database"],
    "verifier": "sql",
    "agents": {"knowledge": "glossary"},
    "rules": {"plain_prompt": PROMPT, "kinds": ["knowledge"], "consult_budget": 4},
}
gym.register("Co/AIPO-Sql-Turn-v0", entry_point="aipo_env:TurnEnv", kwargs=OPTIONS)
gym.register("Co/AIPO-Sql-v0", entry_point="aipo_env:TokenEnv", kwargs=OPTIONS)
