"""Astray: goal misgeneralization and curiosity, with language models as policies.

Importing this package registers the worlds with Gymnasium and loads neither torch nor Stable-Baselines3.
"""

from astray.envs import register_worlds

__version__ = "0.1.0"

register_worlds()
