"""The commands of this package, one a file.

`aipo_env.cli` makes a command line of a function's arguments and tells what its
docstring says of them.
"""
