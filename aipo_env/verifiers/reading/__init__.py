"""How a text states its answer, in formulas and in words; no verifier is needed."""
