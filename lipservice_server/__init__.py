"""The LipService policy server: collects pattern counts, makes sampling policies."""
