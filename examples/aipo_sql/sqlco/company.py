"""The company's tables, with rows that a seed draws."""

import random
import sqlite3

SCHEMA = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, region TEXT, status INTEGER);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, customer_id INTEGER, cents INTEGER, year INTEGER
);
CREATE TABLE staff (id INTEGER PRIMARY KEY, name TEXT, department TEXT, grade INTEGER);
"""
REGIONS = ("north", "south", "east", "west", "centre")
YEARS = (2020, 2021, 2022, 2023, 2024)
DEPARTMENTS = ("sales", "design", "law", "stores", "accounts")


def fill(connection: sqlite3.Connection, seed: int) -> None:
    """Make the tables; equal seeds draw equal rows."""
    draw = random.Random(seed)
    connection.executescript(SCHEMA)
    for number in range(1, 61):
        row = (number, f"c{number}", REGIONS[number % 5], draw.randrange(3))
        connection.execute("INSERT INTO customer VALUES (?, ?, ?, ?)", row)
        row = (number, f"s{number}", DEPARTMENTS[number % 5], draw.randrange(10))
        connection.execute("INSERT INTO staff VALUES (?, ?, ?, ?)", row)
    for number in range(1, 121):
        customer, cents = draw.randrange(1, 61), draw.randrange(100, 1000)
        row = (number, customer, cents, draw.choice(YEARS))
        connection.execute("INSERT INTO orders VALUES (?, ?, ?, ?)", row)
