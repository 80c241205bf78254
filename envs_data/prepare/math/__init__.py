"""The templates from which `math_tasks` makes problems, a module for each topic."""
