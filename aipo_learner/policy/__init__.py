"""The policy as a torch model: read, saved, adapted, run, and spread over ranks."""
