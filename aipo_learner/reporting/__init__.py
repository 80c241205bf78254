"""The HTML report: reads the folders of finished runs, draws charts, shows episodes."""
