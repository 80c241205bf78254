"""`gym.make("sqlco:Co/AIPO-Sql-Turn-v0")` imports this, which registers the
environment.
"""

from sqlco import environment as environment
from sqlco.agent import Glossary as Glossary
from sqlco.database import Database as Database
from sqlco.tasks import SqlTasks as SqlTasks
from sqlco.verifier import SqlVerifier as SqlVerifier
