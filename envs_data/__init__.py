"""Data that ships with the packages: tasks, settings of the toy world, tiny policy.

This package holds no code that runs. Find its files through `importlib.resources`,
which also works when the wheel was installed somewhere else or is read from an archive:

    from importlib.resources import as_file, files

    text = files("envs_data").joinpath("manifest.json").read_text(encoding="utf-8")

    with as_file(files("envs_data") / "tiny_policy") as folder:  # a real folder on disk
        ...  # folder / "config.json", folder / "model.safetensors"

`manifest.json` lists every data file with its source, licence and SHA-256; `README.md`
says the same for people.
"""
