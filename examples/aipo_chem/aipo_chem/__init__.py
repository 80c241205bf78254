"""`gym.make("aipo_chem:Chem/AIPO-Masses-Turn-v0")` imports this, which registers the
environment.
"""

from aipo_chem import environment as environment
