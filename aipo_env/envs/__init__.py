"""Gymnasium environments, registered when `aipo_env` is imported.

`AIPO-Math-v0` is stepped token by token, `AIPO-Math-Turn-v0` turn by turn in text.
"""

import gymnasium

gymnasium.register("AIPO-Math-v0", entry_point="aipo_env.envs.token_env:TokenEnv")
gymnasium.register("AIPO-Math-Turn-v0", entry_point="aipo_env.envs.turn_env:TurnEnv")
