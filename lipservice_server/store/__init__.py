"""
The store: the only modules that query the database, by verbs of the domain.

Rule: every verb that a request can reach takes the team's id first and binds its query to it; what
belongs to another team is as if it were not there. SQL is written out: peewee carries the
connections and transactions, and its query builder is the cost of a report (RELIABILITY, B2).
"""

from __future__ import annotations

from lipservice_server.db import Database
from lipservice_server.store.audit import Audit
from lipservice_server.store.boosts import Boosts
from lipservice_server.store.instances import Instances
from lipservice_server.store.keys import Keys
from lipservice_server.store.leases import Leases
from lipservice_server.store.patterns import Patterns
from lipservice_server.store.policies import Policies
from lipservice_server.store.reports import Reports, Sender
from lipservice_server.store.rollups import Rollups
from lipservice_server.store.savings import Savings
from lipservice_server.store.services import Services
from lipservice_server.store.teams import Teams

__all__ = ["Sender", "Store"]


class Store:
    """Every verb, by what it is about. Safe to share between threads."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.teams = Teams(db)
        self.keys = Keys(db)
        self.services = Services(db)
        self.audit = Audit(db)
        self.leases = Leases(db)
        self.reports = Reports(db, self.services)
        self.patterns = Patterns(db, self.services)
        self.policies = Policies(db, self.services)
        self.boosts = Boosts(db, self.services)
        self.instances = Instances(db, self.services)
        self.savings = Savings(db, self.services)
        self.rollups = Rollups(db)
