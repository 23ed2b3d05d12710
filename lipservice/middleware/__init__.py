"""
Adapters that open a request (`lipservice.scope`) where a framework begins a unit of work.

Rule: each of them names the unit, finds its trace id, says when it has failed, and nothing else.
A framework is imported only in its own module.
"""
