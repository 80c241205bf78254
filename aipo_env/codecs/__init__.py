"""Codecs: how consultations look in what a policy writes and reads."""
