"""An environment for others, by MCP or OpenEnv, and who may reach it."""
