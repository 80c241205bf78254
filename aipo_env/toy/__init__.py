"""A small world in which help matters: exact, offline, unlimited, generated from a
seed.
"""
