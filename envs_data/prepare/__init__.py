"""Scripts that make what ships in `envs_data`."""
