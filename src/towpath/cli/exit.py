"""Exit codes, one meaning each, the same for every verb (design §7)."""

OK, INTERNAL, USAGE, FINDING, GATE_FAILED, ROLLED_BACK, INCONCLUSIVE, PRECONDITION = range(8)
INTERRUPTED = 130

EXIT_CODES_HELP = (
    "Exit codes: 0 ok, 1 internal, 2 usage, 3 finding or difference, 4 gate failed, 5 rolled back, "
    "6 inconclusive, 7 precondition, 130 interrupted."
)


class CliError(Exception):
    """Ends the program with one sentence on stderr: what failed, with which object, and what to do."""

    def __init__(self, message: str, exit_code: int = PRECONDITION) -> None:
        super().__init__(message)
        self.exit_code = exit_code
