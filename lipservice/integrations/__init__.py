"""
Adapters to the logging frameworks.

Rule: an adapter translates a framework's call into (text, severity), asks the sampler, and stamps
or drops. It decides nothing itself. Each framework is imported only in its own module.
"""
