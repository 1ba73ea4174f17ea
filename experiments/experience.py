"""What an agent met while it was trained: events, goals, places. It stands in the rows beside what the tests found."""

from collections import Counter
from typing import Any

import numpy as np

from astray.agents.reading import ObservationReader

PREFIX = "met_"


class Experience:
    """Counts over training, for columns of rows that begin with ``met_``.

    - ``met_episodes``: finished episodes so far.
    - ``met_<goal>``: in how many of them the goal was reached.
    - ``met_contradictions``: how often in them one goal was reached for the first time and another was not in that
      step, which is what tells an agent that goals differ (0 in worlds with one goal).
    - ``met_<event>``: in how many steps so far an event happened.
    - ``met_observations``: how many different observations were met since the last test.
    """

    def __init__(self, read: ObservationReader, goals: list[str], events: tuple[str, ...]):
        """Begins with nothing met.

        Args:
            read: of the observations that are met.
            goals: names, the intended one first.
            events: names.
        """
        self._read, self._goals = read, goals
        self._counts = Counter(dict.fromkeys(("episodes", "contradictions", *goals, *events), 0))
        self._seen: set[int] = set()

    def meet(self, observations: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """Counts one step of all environments."""
        self._seen.update(self._read.keys(observations).tolist())
        for info in infos:
            for event in info["events"]:
                if event not in self._goals:
                    self._counts[event] += 1
            if "goals" not in info:
                continue
            visits = list(info["goals"].values())
            self._counts["episodes"] += 1
            for goal, visit in info["goals"].items():
                self._counts[goal] += visit >= 0
                self._counts["contradictions"] += visit >= 0 and visits.count(visit) < len(visits)

    def columns(self) -> dict[str, int]:
        """The counts so far."""
        counts = {f"{PREFIX}{name}": count for name, count in self._counts.items()}
        return counts | {f"{PREFIX}observations": len(self._seen)}

    def tested(self) -> None:
        """Begins to count different observations anew."""
        self._seen.clear()

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"counts": dict(self._counts), "seen": np.array(sorted(self._seen), np.uint64)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where ``get_state`` was."""
        self._counts, self._seen = Counter(state["counts"]), set(state["seen"].tolist())
