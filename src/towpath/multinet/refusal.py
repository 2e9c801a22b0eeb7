"""Why a pod cannot have a network it asks for."""


class NetworkRefused(Exception):
    """``code`` of the catalogue, one sentence, and what to do; ``about`` the field, network or plugin."""

    def __init__(self, code: str, about: str, problem: str, fix: str) -> None:
        super().__init__(f"{about}: {problem}" if about else problem)
        self.code, self.about, self.problem, self.fix = code, about, problem, fix

    @property
    def details(self) -> str:
        """What to do, and where to read more."""
        return f"{self.fix}; {self.code}"
